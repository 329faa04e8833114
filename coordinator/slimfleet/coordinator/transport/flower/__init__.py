"""Flower as the transport: the one place of the coordinator that imports flwr."""
