"""Quantisation: weights and activations on grids of few bits, after training or, with epochs, aware of it.

Weights get the grid of least squared error; they are rounded so that the outputs of their layer change least, see
`error_aware`. Activations get the range that calibration finds; they are rounded at the inputs of linear,
convolutional, recurrent and attention layers, as an integer runtime does. `mixed` spends the same bits where rounding
costs most: each tensor is tried alone at each number of bits, and bits go where they keep the outputs of the model.
Training moves weights that are not rounded, and the steps of the grids (LSQ, Esser et al. 2020, arXiv 1902.08153).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from annotated_types import Ge, Le
from torch import Tensor

from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.constraints import Constraint, Grid, Mask, Shared
from slimfleet.compression.model.evaluation.sensitivity import Sensitivity, plots_of, sensitivities_of_tensors
from slimfleet.compression.model.rounding.allocation import allocated
from slimfleet.compression.model.rounding.calibration import calibrated
from slimfleet.compression.model.rounding.error_aware import round_error_aware
from slimfleet.compression.model.rounding.grids import Granularity, Scheme, grid_of
from slimfleet.compression.model.slim_model import SlimModel, weights_of
from slimfleet.compression.model.technique import LayerChange, Plot, TechniqueReport
from slimfleet.compression.model.training.tuning import Tuner, Tuning, better, tune

__all__ = ["Quantise", "quantise", "sensitivity_to_bits"]

TRIED = (2, 3, 4, 5, 6, 7, 8)
"""Bits that mixed precision chooses from; 16 too, where the mean is above 8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantise:
    """Settings of `quantise`."""

    weights: Annotated[int, Ge(2), Le(16)] = 8
    """Bits of a weight; of the mean one, where they are mixed."""
    activations: Literal[0, 2, 3, 4, 5, 6, 7, 8, 16] = 0
    """Bits of an activation; 0 leaves activations in floating point."""
    granularity: Granularity = "channel"
    scheme: Scheme = "auto"
    mixed: bool = False
    rounding: Literal["error-aware", "nearest"] = "error-aware"
    """Of weights before training; where that is better than what training ends with, it stays."""
    calibration: Annotated[int, Ge(1), Le(100_000)] = 256
    """Training examples that the ranges of activations, and error-aware rounding, are taken from."""
    tuning: Tuning = field(default_factory=lambda: Tuning(epochs=0, optimizer="adamw", learning_rate=0.002))


def quantise(slim: SlimModel, central: CentralTask, settings: Quantise) -> tuple[SlimModel, TechniqueReport]:
    """Grids on tensors of two or more dimensions, and on the inputs of the layers that have them.

    Masked weights stay zero; shared weights stay as they are, since a codebook has few values already; weights on a
    grid of no more bits stay on it. Raises BadInput where all weights are shared and activations are to stay.
    """
    weights = weights_of(slim.model)
    whole = {name: why for name in weights if (why := _kept(slim.constraints.get(name), settings))}
    names = [name for name in weights if name not in whole]
    if not names and not settings.activations and all(why == SHARED for why in whole.values()):
        raise BadInput("quantise finds no weights that are not shared already: leave it out")
    bits, plots = _bits(slim, central, names, settings)
    grids = {name: _grid(weights[name], bits[name], settings, slim.constraints.get(name)) for name in names}
    left: tuple[LayerChange, ...] = ()
    if settings.activations:
        slim, left = calibrated(slim, central, settings.activations, settings.calibration)
    rounded = slim.constrained(grids)
    if settings.rounding == "error-aware":
        rounded = round_error_aware(slim, central, grids, settings.calibration)
    tuned, steps = _trained(slim, rounded, central, grids, settings.tuning)
    return tuned, TechniqueReport(
        changed=tuple(LayerChange(name, f"{bits[name]} bits") for name in names),
        whole=(*(LayerChange(name, why) for name, why in whole.items()), *left),
        plots=plots,
        steps=steps,
    )


def sensitivity_to_bits(
    slim: SlimModel, central: CentralTask, names: list[str], settings: Quantise
) -> tuple[Sensitivity, ...]:
    """Validation loss and accuracy with each tensor alone on a grid, at 2 to 8 bits."""
    tried = (*TRIED, 16) if settings.weights > 8 else TRIED

    def rounded(name: str, weight: Tensor, bits: float) -> Tensor:
        return _grid(weight, int(bits), settings, slim.constraints.get(name)).obeyed(weight)

    return sensitivities_of_tensors(slim, central, names, tried, rounded)


SHARED = "its weights are shared already"


def _kept(constraint: Constraint | None, settings: Quantise) -> str | None:
    """Why a tensor stays as it is; None where it gets a new grid."""
    if isinstance(constraint, Shared):
        return SHARED
    if isinstance(constraint, Grid) and constraint.bits <= settings.weights:
        return f"it is on a grid of {constraint.bits} bits already"
    return None


def _bits(
    slim: SlimModel, central: CentralTask, names: list[str], settings: Quantise
) -> tuple[dict[str, int], Mapping[str, Plot]]:
    """Bits of each tensor, and the plots that they were chosen by."""
    if not settings.mixed or not names:
        return dict.fromkeys(names, settings.weights), {}
    found = sensitivity_to_bits(slim, central, names, settings)
    sizes = {name: weight.numel() for name, weight in weights_of(slim.model).items() if name in names}
    losses = {each.part: dict(zip(map(int, each.x), each.divergence, strict=True)) for each in found}
    bits = allocated(sizes, losses, settings.weights * sum(sizes.values()))
    return bits, plots_of("bits of one tensor", "bits", found)


def _trained(
    slim: SlimModel, rounded: SlimModel, central: CentralTask, grids: Mapping[str, Grid], tuning: Tuning
) -> tuple[SlimModel, int]:
    """The better of `rounded` and of what training makes of `slim` on the grids; and its steps.

    Training begins between the points of the grid: what rounding took away is still there.
    """
    settled, without = tune(rounded, central, replace(tuning, epochs=0))
    if not tuning.epochs:
        return settled, 0
    tuner = Tuner(slim, central, tuning, "training on the grid")
    tuner.constrain(grids)
    tuned, done = tuner.finish()
    return (settled if better(without.validation, done.validation) else tuned), done.steps


def _grid(weight: Tensor, bits: int, settings: Quantise, constraint: Constraint | None) -> Grid:
    free = constraint.free if isinstance(constraint, Mask | Grid) else None
    grid = grid_of(weight, bits, settings.granularity, settings.scheme, free)
    return replace(grid, learned=bool(settings.tuning.epochs))
