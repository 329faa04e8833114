"""Rule: how many devices are trained at once, and in which form, by the shape of their work alone.

It looks at no clock, so that a seed gives the same bytes everywhere. Its numbers were found by
`make bench-simulation ARGS=--shapes`.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from slimfleet.compression.cost import Work

__all__ = ["FEWEST", "usual_group", "vmap_pays"]

GROUP_BYTES = 2**24
"""Activations and parameters of all devices of a group: what lies close to a core while it goes forwards and
backwards."""

FEWEST, MOST = 2, 32
"""Devices of a group. Beyond 32 little more is won, and a round would be too few groups for several workers."""

LEAST = 4
"""Devices that are trained at once where that many do not fit; with one that alone is twice too large it is FEWEST."""

ON_GPU = 128
"""Devices of a group on a GPU, which waits for the processor as long as it is not full."""


def usual_group(work: Work, batch_size: int, where: torch.device) -> int:
    """How many devices are trained at once by default."""
    if where.type != "cpu":
        return ON_GPU
    one = _bytes_of_one(work, batch_size)
    least = LEAST if one < 2 * GROUP_BYTES else FEWEST
    return min(max(int(GROUP_BYTES // one), least), MOST)


def vmap_pays(model: nn.Module, work: Work, batch_size: int, where: torch.device) -> bool:
    """Whether a model that cannot be stacked is faster vmapped than in the loop.

    It is while its activations are small, and never with convolutions: vmap lays their channels out as the loop does,
    and grouped convolutions are slower in that layout.
    """
    if where.type != "cpu":
        return True
    convolves = any(isinstance(module, _ConvNd) for module in model.modules())
    # torch's own GRU takes as many small steps as one that is written out, for each device.
    enough = FEWEST if any(isinstance(module, nn.GRU) for module in model.modules()) else LEAST
    return not convolves and enough * _bytes_of_one(work, batch_size) <= GROUP_BYTES


def _bytes_of_one(work: Work, batch_size: int) -> float:
    """Activations and parameters of a device."""
    return max(work.activation_bytes_per_example * batch_size + work.parameter_bytes, 1.0)
