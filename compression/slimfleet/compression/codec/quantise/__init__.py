"""Quantisation: tensors to integers on a grid, and the search for its step. Internal to the codec, exports nothing."""

__all__: list[str] = []
