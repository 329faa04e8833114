"""Rounding for the entropy coder, without training: uniform grids, as coarse as the outputs of the model allow.

Other than `quantise`, bits are not the same for all weights: frequent values take few. See `rate_aware`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import nn

from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.constraints import Grid, Mask
from slimfleet.compression.model.rate_aware import rate_aware
from slimfleet.compression.model.slim_model import SlimModel, weights_of
from slimfleet.compression.model.technique import Curve, LayerChange, Plot, TechniqueReport
from slimfleet.compression.model.threshold import largest_share

__all__ = ["Round", "round_weights"]

LEAST, MOST = 1e-5, 1.0
"""Divergences between which a loss is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Settings of `round`."""

    divergence: Annotated[float, Gt(0), Le(100)] = 0.005
    """About how far the outputs may go: mean Kullback-Leibler divergence of class probabilities, nats; mean squared
    difference of other outputs."""
    loss: Annotated[float, Gt(0), Le(100)] | None = None
    """Points of validation accuracy (percent of the loss, where a task has no accuracy) that may be lost; the
    divergence is then found, in place of `divergence`."""
    price: Annotated[float, Ge(0), Le(1)] = 0.1
    """Of a bit, in squared steps; 0 rounds to the nearest."""
    mantissa: Annotated[int, Ge(1), Le(23)] = 6
    """Bits of the mantissas of biases and normalisations."""
    calibration: Annotated[int, Ge(1), Le(100_000)] = 2048
    """Training examples that the inputs of layers are taken from."""


def round_weights(
    slim: SlimModel, central: CentralTask, settings: Round
) -> tuple[SlimModel, TechniqueReport]:
    """Grids on tensors of two or more dimensions, and fewer bits in the mantissas of all others.

    Masked weights stay zero; weights that are shared or on a grid stay as they are. Raises BadInput where all are, and
    where the least divergence loses more than `loss`.
    """
    names, whole = [], []
    for name in weights_of(slim.model):
        constraint = slim.constraints.get(name)
        if constraint is None or isinstance(constraint, Mask):
            names.append(name)
        else:
            whole.append(LayerChange(name, f"it obeys a {type(constraint).__name__.lower()} already"))
    if not names:
        raise BadInput("round finds no weights that are not shared or on a grid already: leave it out")
    rounding = rate_aware(slim, central, names, settings.price, settings.mantissa, settings.calibration)
    weights = weights_of(slim.model)
    points = tuple(
        Curve(each.part, (float(weights[each.part].numel()),), each.divergence) for each in rounding.found
    )
    plots = {"rounding of one tensor": Plot("weights of the tensor", "divergence of the outputs", points)}
    divergence = settings.divergence
    if settings.loss is not None:

        def rounded(share: float) -> nn.Module:
            return rounding.at(_divergence(share)).model

        share, curve = largest_share(slim.model, central, rounded, settings.loss)
        if not share:
            raise BadInput(
                f"round loses more than {settings.loss:g} points at the finest steps: allow more loss"
            )
        divergence = _divergence(share)
        plots["rounding"] = Plot("share of the divergences tried", "points lost", (curve,), limit=share)
    done = rounding.at(divergence)
    changed = tuple(LayerChange(name, _told(done, name)) for name in names)
    return done, TechniqueReport(changed=changed, whole=tuple(whole), plots=plots)


def _divergence(share: float) -> float:
    return float(LEAST * (MOST / LEAST) ** share)


def _told(slim: SlimModel, name: str) -> str:
    grid, weight = slim.constraints[name], weights_of(slim.model)[name].detach()
    assert isinstance(grid, Grid)
    levels = grid.levels(weight)
    values, zeros = len(torch.unique(levels)), float((levels == 0).float().mean())
    return f"step {float(grid.step):.3g}, {values} values, {zeros:.0%} zero"
