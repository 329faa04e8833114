"""Tensors that a picture has room for."""

from __future__ import annotations

from collections.abc import Sequence

from slimfleet.compression.model.saving.stored import StoredTensor

__all__ = ["MOST_TENSORS", "large_tensors"]

MOST_TENSORS = 30


def large_tensors(tensors: Sequence[StoredTensor]) -> list[StoredTensor]:
    """The largest tensors of two or more dimensions, at most 30, in their order; of any where none has two."""
    able = [each for each in tensors if len(each.shape) >= 2 and each.coding != "tied"] or list(tensors)
    largest = sorted(able, key=lambda each: -each.elements)[:MOST_TENSORS]
    return [each for each in able if each in largest]
