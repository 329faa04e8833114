"""Grids: engines that run devices, and the Flower grid in front of them."""

__all__: list[str] = []
