"""Entropy coding: integers on a grid to the bytes of a body, and strictly back."""
