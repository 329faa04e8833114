"""Architectures: layers in the place of others, sub-networks, and the search among them."""
