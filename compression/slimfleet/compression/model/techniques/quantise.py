"""Quantisation: weights and activations on grids of few bits, after training or, with epochs, aware of it.

Weights get the grid of least squared error. Activations get the range that calibration finds; they are rounded at the
inputs of linear, convolutional and recurrent layers, as an integer runtime does. `mixed` spends the same bits where
rounding costs most: each layer is tried alone at each number of bits, and bits go where they save most loss a byte.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor

from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.calibration import calibrated
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.constraints import Grid, Mask, Shared
from slimfleet.compression.model.grids import Granularity, Scheme, grid_of
from slimfleet.compression.model.slim_model import SlimModel, weights_of
from slimfleet.compression.model.technique import LayerChange, TechniqueReport
from slimfleet.compression.model.tuning import Tuner, Tuning

__all__ = ["Quantise", "quantise"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantise:
    """Settings of `quantise`."""

    weights: Annotated[int, Ge(2), Le(16)] = 8
    """Bits of a weight; of the mean one, where they are mixed."""
    activations: Annotated[int, Ge(0), Le(16)] = 0
    """Bits of an activation; 0 leaves activations in floating point."""
    granularity: Granularity = "channel"
    scheme: Scheme = "symmetric"
    mixed: bool = False
    calibration: Annotated[int, Ge(1), Le(100_000)] = 256
    """Training examples that the ranges of activations are taken from."""
    tuning: Tuning = field(default_factory=lambda: Tuning(epochs=0))


def quantise(slim: SlimModel, central: CentralTask, settings: Quantise) -> tuple[SlimModel, TechniqueReport]:
    """Grids on tensors of two or more dimensions, and on the inputs of the layers that have them.

    Masked weights stay zero; shared weights stay as they are, since a codebook has few values already.
    """
    free = {
        name: c for name in weights_of(slim.model) if not isinstance(c := slim.constraints.get(name), Shared)
    }
    if not free:
        raise BadInput("quantise finds no weights that are not shared already: leave it out")
    bits = dict.fromkeys(free, settings.weights)
    grids = {
        name: _grid(weight, bits[name], settings, slim.constraints.get(name))
        for name, weight in weights_of(slim.model).items()
        if name in free
    }
    rounded = slim.constrained(grids)
    if settings.activations:
        rounded = calibrated(rounded, central, settings.activations, settings.calibration)
    tuned, done = Tuner(rounded, central, settings.tuning, "training on the grid").finish()
    changes = tuple(LayerChange(name, f"{bits[name]} bits") for name in grids)
    whole = tuple(
        LayerChange(name, "its weights are shared") for name in weights_of(slim.model).keys() - free.keys()
    )
    return tuned, TechniqueReport(changed=changes, whole=whole, steps=done.steps)


def _grid(weight: Tensor, bits: int, settings: Quantise, constraint: object) -> Grid:
    free = constraint.free if isinstance(constraint, Mask | Grid) else None
    return grid_of(weight, bits, settings.granularity, settings.scheme, free)
