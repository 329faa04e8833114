"""Rounding for the entropy coder: uniform grids, as coarse as the outputs of the model allow, without training or as
its beginning.

Other than `quantise`, bits are not the same for all weights: frequent values take few. See `rate_aware`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

from annotated_types import Ge, Gt, Le
from torch import nn

from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.constraints import Grid, Mask
from slimfleet.compression.model.evaluation.sensitivity import plots_of
from slimfleet.compression.model.evaluation.threshold import largest_kept, largest_share
from slimfleet.compression.model.rounding.rate_aware import RateAware, rate_aware
from slimfleet.compression.model.rounding.shortening import with_short_vectors
from slimfleet.compression.model.saving.file import packed_bytes
from slimfleet.compression.model.slim_model import SlimModel, weights_of
from slimfleet.compression.model.technique import LayerChange, Plot, TechniqueReport
from slimfleet.compression.model.training.tuning import Tuning, tune

__all__ = ["Round", "round_weights"]

LEAST, MOST = 1e-5, 10.0
"""Divergences between which a loss or a size is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Settings of `round`."""

    divergence: Annotated[float, Gt(0), Le(100)] = 0.005
    """About how far the outputs may go: mean Kullback-Leibler divergence of class probabilities, nats; mean squared
    difference of other outputs."""
    loss: Annotated[float, Gt(0), Le(100)] | None = None
    """Points of validation accuracy (percent of the loss, where a task has no accuracy) that may be lost before
    training; the divergence is then found."""
    bits: Annotated[float, Gt(0), Le(32)] | None = None
    """Bits of the file for each parameter, before training; the divergence is then found."""
    price: Annotated[float, Ge(0), Le(1)] = 0.1
    """Of a bit, in squared steps; 0 rounds to the nearest."""
    mantissa: Annotated[int, Ge(1), Le(23)] = 6
    """Bits of the mantissas of biases, normalisations, steps of grids and values of codebooks."""
    calibration: Annotated[int, Ge(1), Le(100_000)] = 2048
    """Training examples that the inputs of layers are taken from."""
    tuning: Tuning = field(default_factory=lambda: Tuning(epochs=0, optimizer="adamw", learning_rate=0.001))
    """Training on the grids, whose steps move too; zeros stay."""

    def __post_init__(self) -> None:
        if self.loss is not None and self.bits is not None:
            raise BadInput(
                "round: loss and bits are both given, and each decides how coarse grids are: leave one out"
            )


def round_weights(
    slim: SlimModel, central: CentralTask, settings: Round
) -> tuple[SlimModel, TechniqueReport]:
    """Grids on tensors of two or more dimensions, and fewer bits in the mantissas of all others.

    Masked weights stay zero; weights that are shared or on a grid stay there. Raises BadInput where the least
    divergence loses more than `loss`, or the largest takes more than `bits`.
    """
    whole = tuple(_whole(slim))
    names = [name for name in weights_of(slim.model) if name not in {each.layer for each in whole}]
    done = with_short_vectors(slim, settings.mantissa, names)
    plots: Mapping[str, Plot] = {}
    if names:
        rounding = rate_aware(slim, central, names, settings.price, settings.mantissa, settings.calibration)
        divergence, plots = _divergence(slim, central, rounding, settings)
        done = rounding.at(divergence)
    tuned, told = tune(_learning(done, names, settings), central, settings.tuning, "training on the grids")
    done = with_short_vectors(tuned, settings.mantissa)
    changed = tuple(LayerChange(name, _told(done, name)) for name in names)
    return done, TechniqueReport(changed=changed, whole=whole, plots=plots, steps=told.steps)


def _whole(slim: SlimModel) -> Iterator[LayerChange]:
    """Tensors that are on a grid or in a codebook already."""
    for name in weights_of(slim.model):
        constraint = slim.constraints.get(name)
        if constraint is not None and not isinstance(constraint, Mask):
            yield LayerChange(name, f"it obeys a {type(constraint).__name__.lower()} already")


def _learning(slim: SlimModel, names: list[str], settings: Round) -> SlimModel:
    """The same model; training, where there is any, moves the steps of its new grids too, and keeps zeros, whose number
    decides on the bytes."""
    if not settings.tuning.epochs:
        return slim
    weights = weights_of(slim.model)
    grids = {name: grid for name in names if isinstance(grid := slim.constraints[name], Grid)}
    return slim.constrained(
        {n: replace(grid, learned=True, free=weights[n].detach() != 0) for n, grid in grids.items()}
    )


def _divergence(
    slim: SlimModel, central: CentralTask, rounding: RateAware, settings: Round
) -> tuple[float, Mapping[str, Plot]]:
    """How far the outputs may go, and the plots that it was found by."""
    plots = plots_of("rounding of one tensor", "squared error over squared weights", rounding.found)
    if settings.bits is not None:
        return _of_bits(central, rounding, settings.bits), plots
    if settings.loss is None:
        return settings.divergence, plots

    def rounded(share: float) -> nn.Module:
        return rounding.at(_at(share)).model

    share, curve = largest_share(slim.model, central, rounded, settings.loss)
    if not share:
        raise BadInput(f"round loses more than {settings.loss:g} points at the finest steps: allow more loss")
    return _at(share), {**plots, "rounding": Plot("how coarse", "points lost", (curve,))}


def _of_bits(central: CentralTask, rounding: RateAware, bits: float) -> float:
    """The least divergence whose file has at most so many bits a parameter."""
    parameters = sum(p.numel() for p in rounding.slim.model.parameters())

    def fits(share: float) -> bool:
        return 8 * packed_bytes(rounding.at(_at(share)), central.task) <= bits * parameters

    if not fits(1.0):
        raise BadInput(f"round cannot hold a parameter in {bits:g} bits at the coarsest steps: allow more")
    return _at(1 - largest_kept(lambda finer: fits(1 - finer), central, "finding the steps"))


def _at(share: float) -> float:
    return float(LEAST * (MOST / LEAST) ** share)


def _told(slim: SlimModel, name: str) -> str:
    grid, weight = slim.constraints[name], weights_of(slim.model)[name].detach()
    assert isinstance(grid, Grid)
    levels = grid.levels(weight).flatten().tolist()
    return f"step {float(grid.step):.3g}, {len(set(levels))} values, {levels.count(0) / len(levels):.0%} zero"
