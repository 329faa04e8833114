"""Error-aware rounding: the weights of a layer are rounded so that its outputs change least, not the weights.

GPTQ (Frantar et al. 2023, arXiv 2210.17323, algorithm 1): one input after the other is rounded, those that matter most
first, and the weights that are not rounded yet make up for the error, by the second moments of the layer's inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.constraints import Grid
from slimfleet.compression.model.rounding.moments import moments_of
from slimfleet.compression.model.slim_model import SlimModel

__all__ = ["Choice", "nearest", "round_error_aware", "rounded_levels"]

DAMPING = 0.01
"""Of the mean second moment, added to each: inputs that hardly occur would make up for everything."""

Choice = Callable[[Tensor, Tensor], Tensor]
"""Chooses whole numbers for values in steps [groups, outputs], given what their squared error costs, relative to the
mean over all inputs, [groups, 1]."""


def nearest(values: Tensor, cost: Tensor) -> Tensor:
    """The next whole numbers."""
    return values.round()


def round_error_aware(
    slim: SlimModel, central: CentralTask, grids: Mapping[str, Grid], examples: int
) -> SlimModel:
    """A copy of `slim` whose weights obey `grids`, rounded on the inputs that so many training examples give.

    Layers are rounded one after the other, with inputs that come from those already rounded. What has no second moments
    (`moments_of`) is rounded to the nearest.
    """
    copied = slim.copy()
    for name, weight in copied.model.named_parameters():
        if name not in grids:
            continue
        moments = moments_of(copied.model, central, [name], examples).get(name)
        if moments is not None:
            weight.data.copy_(rounded_levels(weight.detach(), grids[name], moments) * grids[name].step)
    return copied.constrained(grids)


def rounded_levels(weight: Tensor, grid: Grid, moments: Tensor, choose: Choice = nearest) -> Tensor:
    """Whole numbers within the bounds of `grid` for `weight` [c, ...], zero where it is not free.

    `moments` [groups, inputs, inputs] are those of the inputs of its filters.
    """
    groups, inputs, _ = moments.shape
    order = moments.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True, stable=True)
    by_worth = order[:, None].expand(groups, len(weight) // groups, inputs)

    def grouped(each: Tensor) -> Tensor:
        rows = each.expand(weight.shape).reshape(groups, len(weight) // groups, inputs)
        return rows.gather(2, by_worth)

    step, low, high = (grouped(each)[:, :, 0] for each in (grid.step, grid.low, grid.high))
    left = grouped(weight) / step[:, :, None]
    free = None if grid.free is None else grouped(grid.free)
    inverse = _inverse_factor(moments, order)
    cost = inverse.diagonal(dim1=1, dim2=2) ** -2
    cost = cost / cost.mean()
    levels = torch.empty_like(left)
    for i in range(inputs):
        column = left[:, :, i]
        chosen = choose(column, cost[:, i : i + 1]).clamp(low, high)
        levels[:, :, i] = chosen if free is None else chosen * free[:, :, i]
        error = (column - levels[:, :, i]) / inverse[:, i, i, None]
        left[:, :, i + 1 :] -= error[:, :, None] * inverse[:, None, i, i + 1 :]
    return torch.empty_like(levels).scatter_(2, by_worth, levels).view_as(weight)


def _inverse_factor(moments: Tensor, order: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse of the damped moments of each group, rows and columns in `order`."""
    rows = moments.gather(1, order[:, :, None].expand_as(moments))
    ordered = rows.gather(2, order[:, None, :].expand_as(moments))
    mean = ordered.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)
    damped = (ordered + DAMPING * mean[:, None, None] * torch.eye(moments.shape[1])).double()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor.to(moments.dtype)
