"""Grids for weights: which step, and which multiples of it, represent a tensor best in so many bits."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from slimfleet.compression.model.constraints import Grid

__all__ = ["Granularity", "Scheme", "grid_of"]

Granularity = Literal["channel", "tensor"]
"""One step for each output channel of a tensor, or one for all of it."""

Scheme = Literal["auto", "symmetric", "affine"]
"""Multiples from -(2**(b-1) - 1) to its opposite; or 2**b that lie between the smallest and the largest weight, zero
among them (Jacob et al. 2018, arXiv 1712.05877). `auto` is affine below 8 bits, where it loses less, and symmetric from
there, as integer runtimes want it."""

INTEGER_BITS = 8

CLIPPED = torch.linspace(0.2, 1.0, 33)
"""Shares of the largest weight that are tried as the end of the grid."""


def grid_of(
    weight: Tensor, bits: int, granularity: Granularity, scheme: Scheme, free: Tensor | None = None
) -> Grid:
    """The grid of 2**`bits` multiples (one fewer where symmetric) with the least squared error among `CLIPPED` ranges.

    `weight`: floats [c, ...], output channels first. A channel of zeros alone gets step 1.
    """
    rows = weight.detach().flatten(1) if granularity == "channel" else weight.detach().reshape(1, -1)
    low, high = _range(rows, bits, scheme)
    best = torch.full((len(rows), 1), torch.inf)
    step = torch.ones(len(rows), 1)
    for clipped in CLIPPED:
        tried = _step(rows, low, high) * clipped
        error = (((rows / tried).round().clamp(low, high) * tried - rows) ** 2).sum(1, keepdim=True)
        step, best = torch.where(error < best, tried, step), torch.minimum(error, best)
    shape = (-1, *[1] * (weight.dim() - 1)) if granularity == "channel" else ()
    return Grid(step.reshape(shape), low.reshape(shape), high.reshape(shape), free)


def _range(rows: Tensor, bits: int, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """The smallest and the largest multiple of each row, [rows, 1]."""
    count = 2**bits - 1
    if scheme == "symmetric" or (scheme == "auto" and bits >= INTEGER_BITS):
        high = torch.full((len(rows), 1), float(count // 2))
        return -high, high
    least = rows.amin(1, keepdim=True).clamp(max=0)
    most = rows.amax(1, keepdim=True).clamp(min=0)
    zero = (-least / (most - least).clamp(min=torch.finfo(torch.float32).tiny) * count).round()
    return -zero, count - zero


def _step(rows: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The step whose grid just holds every weight of a row."""
    least, most = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    down = torch.where(low < 0, least / low.clamp(max=-1), torch.zeros_like(least))
    up = torch.where(high > 0, most / high.clamp(min=1), torch.zeros_like(most))
    step = torch.maximum(down, up)
    return torch.where(step > 0, step, torch.ones_like(step))
