"""Shorter mantissas: for what is no matrix, and for the steps and values that matrices are stored with."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor

from slimfleet.compression.model.constraints import Constraint, Grid, Shared
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.packing.dtypes import FLOAT32
from slimfleet.compression.packing.rounding import rounded

__all__ = ["shortened", "with_short_vectors"]


def shortened(values: Tensor, bits: int) -> Tensor:
    """The nearest floats whose mantissas have so many bits, of the same shape and dtype."""
    array = values.detach().to(torch.float32).contiguous().numpy()
    short = rounded(array.reshape(-1), FLOAT32, bits).reshape(array.shape).copy()
    return torch.from_numpy(short).to(values.dtype)


def with_short_vectors(slim: SlimModel, bits: int, besides: Collection[str] = ()) -> SlimModel:
    """A copy whose vectors, steps of grids and shared values keep so many bits of their mantissas, but for the
    parameters named in `besides`.

    Levels of a grid stay, and weights that share a value go on sharing one. Matrices without a grid or a codebook stay.
    """
    short = slim.copy()
    parameters = dict(short.model.named_parameters())
    constraints: dict[str, Constraint] = {}
    for name, tensor in [*parameters.items(), *short.model.named_buffers()]:
        constraint = slim.constraints.get(name)
        if name in besides or not tensor.is_floating_point():
            continue
        if isinstance(constraint, Grid):
            step = shortened(constraint.step, bits)
            constraints[name] = replace(constraint, step=step)
            tensor.data.copy_(constraint.levels(tensor.detach()) * step)
        elif tensor.dim() < 2 or isinstance(constraint, Shared):
            tensor.data.copy_(shortened(tensor, bits))
    return short.constrained(constraints)
