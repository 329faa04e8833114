"""Quantisation: from float tensors to integers on a grid, at an error or a size."""
