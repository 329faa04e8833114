"""Rounding: grids for weights and activations, and which of their points weights take."""
