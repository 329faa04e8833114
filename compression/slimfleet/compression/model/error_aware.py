"""Error-aware rounding: the weights of a layer are rounded so that its outputs change least, not the weights.

GPTQ (Frantar et al. 2023, arXiv 2210.17323, algorithm 1): one input after the other is rounded, those that matter most
first, and the weights that are not rounded yet make up for the error, by the second moments of the layer's inputs.
Layers are rounded one after the other, with inputs that come from those already rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimfleet.compression.model.calibration import run_calibration
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.constraints import Grid
from slimfleet.compression.model.layers.activation_grid import rounded_inputs
from slimfleet.compression.model.slim_model import SlimModel

__all__ = ["round_error_aware"]

DAMPING = 0.01
"""Of the mean second moment, added to each: inputs that hardly occur would make up for everything."""

MOST_INPUTS = 4096
"""A layer with more inputs has a matrix of second moments that is too large: it is rounded to the nearest."""


def round_error_aware(
    slim: SlimModel, central: CentralTask, grids: Mapping[str, Grid], examples: int
) -> SlimModel:
    """A copy of `slim` whose weights obey `grids`, rounded on the inputs that so many training examples give.

    Linear layers and convolutions over one or two dimensions are rounded so; every other weight to the nearest.
    """
    copied = slim.copy()
    weights = dict(copied.model.named_parameters())
    for path, layer in copied.model.named_modules():
        name = f"{path}.weight" if path else "weight"
        if name not in grids or not isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
            continue
        if layer.weight[0].numel() > MOST_INPUTS:
            continue
        seen = _Moments()
        run_calibration(copied.model, central, examples, {layer: seen})
        if seen.moments is not None:
            weights[name].data.copy_(_rounded(layer.weight.detach(), grids[name], seen.moments))
    return copied.constrained(grids)


class _Moments:
    """Second moments of the inputs of a layer, [groups, inputs, inputs]."""

    def __init__(self) -> None:
        self.moments: Tensor | None = None

    def __call__(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if not rounded_inputs(layer, inputs):
            return
        columns = _columns(layer, inputs[0])
        moments = columns @ columns.transpose(1, 2)
        self.moments = moments if self.moments is None else self.moments + moments


def _columns(layer: nn.Module, x: Tensor) -> Tensor:
    """What each weight of a filter is multiplied with: [groups, inputs of a filter, times]."""
    if isinstance(layer, nn.Linear):
        return x.reshape(-1, layer.in_features).T[None]
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    flat: tuple[int, ...] = ()
    if isinstance(layer, nn.Conv1d):
        x, flat = x.unsqueeze(-2), (1,)
    patches = F.unfold(
        x, (*flat, *layer.kernel_size), dilation=(*flat, *layer.dilation), stride=(*flat, *layer.stride)
    )
    grouped: Tensor = patches.reshape(len(patches), layer.groups, -1, patches.shape[-1])
    return grouped.permute(1, 2, 0, 3).flatten(2)


def _rounded(weight: Tensor, grid: Grid, moments: Tensor) -> Tensor:
    """Points of `grid` for `weight` [c, ...], whose filters are in as many groups as there are `moments`."""
    rows = weight.flatten(1)
    step, low, high = (
        each.expand(weight.shape).flatten(1)[:, :1] for each in (grid.step, grid.low, grid.high)
    )
    free = torch.ones_like(rows) if grid.free is None else grid.free.flatten(1).to(rows.dtype)
    parts = zip(
        *(torch.chunk(each, len(moments)) for each in (rows, step, low, high, free)), moments, strict=True
    )
    return torch.cat([_rounded_rows(*part) for part in parts]).view_as(weight)


def _rounded_rows(
    rows: Tensor, step: Tensor, low: Tensor, high: Tensor, free: Tensor, moments: Tensor
) -> Tensor:
    """`rows` [outputs, inputs] on the grid; `step`, `low` and `high` are [outputs, 1]."""
    order = moments.diagonal().argsort(descending=True, stable=True)
    left, free = rows[:, order].clone(), free[:, order]
    inverse = _inverse_factor(moments[order][:, order])
    rounded = torch.empty_like(left)
    for i in range(left.shape[1]):
        column = left[:, i : i + 1]
        levels = (column / step).round().clamp(low, high) * free[:, i : i + 1]
        rounded[:, i : i + 1] = levels * step
        error = (column - levels * step) / inverse[i, i]
        left[:, i + 1 :] -= error * inverse[i, i + 1 :]
    return rounded[:, order.argsort()]


def _inverse_factor(moments: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse of the damped moments."""
    damping = DAMPING * moments.diagonal().mean().clamp(min=1e-12)
    damped = (moments + damping * torch.eye(len(moments))).double()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor.to(moments.dtype)
