"""Entropy coding: integers on a grid to bytes, and strictly back. Internal to the codec, exports nothing."""

__all__: list[str] = []
