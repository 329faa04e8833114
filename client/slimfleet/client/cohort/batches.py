"""Batches of several devices in one memory, and what goes to a GPU and comes back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, zip_longest

import torch
from torch import Tensor

from slimfleet.compression import Examples

__all__ = ["Batches", "Gathered", "fetched"]

Batches = Sequence[Tensor]
"""Which of a device's examples each step takes, int64 [batch]."""


class Gathered:
    """What each step of several devices takes: a step has as many slots as its largest batch."""

    def __init__(
        self, work: Sequence[tuple[Examples, Batches]], sizes: Sequence[Sequence[int]], where: torch.device
    ) -> None:
        slots = [max(each) for each in zip_longest(*sizes, fillvalue=0)]
        self._begins = [0, *accumulate(slots)]
        places = [_slots(batches, own, slots) for (_, batches), own in zip(work, sizes, strict=True)]
        columns = zip(*((*examples.arguments, examples.targets) for examples, _ in work), strict=True)
        self._columns = [_gathered(column, places, self._begins[-1], where) for column in columns]

    def of(self, rows: slice, step: int, size: int) -> list[Tensor]:
        """Arguments and targets [devices, batch, ...] of the devices `rows`, whose batches of this step have one
        size."""
        begin = self._begins[step]
        return [each[rows, begin : begin + size] for each in self._columns]


def _slots(batches: Batches, sizes: Sequence[int], slots: Sequence[int]) -> Tensor:
    """Which example lies in each slot, int64; in one that is not used, any."""
    filled = [
        batch if size == slot else torch.cat([batch, batch[:1].expand(slot - size)])
        for batch, size, slot in zip(batches, sizes, slots, strict=False)
    ]
    return torch.cat(filled)


def _gathered(column: Sequence[Tensor], places: Sequence[Tensor], slots: int, where: torch.device) -> Tensor:
    """Examples [devices, slots, ...] of a `column`: one of the tensors that each device has."""
    whole = _unpaged((len(column), slots, *column[0].shape[1:]), column[0].dtype, where)
    for row, own, each in zip(whole, column, places, strict=True):
        torch.index_select(own, 0, each, out=row[: each.numel()])
    # To a GPU they go as one, since each copy there costs as much as a small batch.
    return whole.to(where)


def fetched(tensor: Tensor) -> Tensor:
    """A tensor on the processor, contiguous."""
    if tensor.device.type == "cpu":
        return tensor.contiguous()
    return _unpaged(tensor.shape, tensor.dtype, tensor.device).copy_(tensor)


def _unpaged(shape: Sequence[int], dtype: torch.dtype, where: torch.device) -> Tensor:
    """Memory that a GPU, if it is there that torch computes, reads and writes by itself, at ten times the speed; torch
    keeps it for the next time."""
    return torch.empty(shape, dtype=dtype, pin_memory=where.type != "cpu")
