"""Adaptive compression: during one training the share of zeros and the bits of a weight follow how well the model
copes, within bounds (`control`), instead of a schedule that is fixed before.

Masks follow the magnitude of weights that are neither masked nor rounded, so that a weight comes back as it was where
control loosens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt

from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.evaluation.control import Bounds, Control, Seen, next_control
from slimfleet.compression.model.evaluation.threshold import points_lost
from slimfleet.compression.model.rounding.grids import Granularity, Scheme, grid_of
from slimfleet.compression.model.slim_model import SlimModel, weights_of
from slimfleet.compression.model.technique import Curve, LayerChange, Plot, TechniqueReport
from slimfleet.compression.model.techniques.sparsify import highest
from slimfleet.compression.model.training.tuning import Tuner, Tuning

__all__ = ["Adapt", "adapt"]

BITS = 8
"""Where control begins, and what it never exceeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapt:
    """Settings of `adapt`."""

    size: Annotated[float, Gt(0), Lt(1)] = 0.05
    """Share of the weights' float32 size to come to, counted as bits of weights that are not zero."""
    loss: Annotated[float, Gt(0), Le(100)] = 1.0
    """Points of validation accuracy (percent of the loss, where a task has no accuracy) that may be lost."""
    most: Annotated[float, Gt(0), Lt(1)] = 0.95
    """Largest share of zeros."""
    least_bits: Annotated[int, Ge(2), Le(8)] = 3
    looks: Annotated[float, Gt(0), Le(100)] = 2.0
    """At the model in each epoch."""
    patience: Annotated[int, Ge(1), Le(100)] = 2
    """Looks without a better loss that make a plateau."""
    granularity: Granularity = "channel"
    scheme: Scheme = "auto"
    tuning: Tuning = field(default_factory=lambda: Tuning(epochs=20, optimizer="adamw", learning_rate=0.002))


def adapt(slim: SlimModel, central: CentralTask, settings: Adapt) -> tuple[SlimModel, TechniqueReport]:
    """Zero and round weights of tensors of two or more dimensions, as far as training bears it.

    Raises BadInput where weights obey a constraint already, and without training.
    """
    if slim.constraints:
        name, obeyed = next(iter(slim.constraints.items()))
        raise BadInput(
            f"adapt decides on zeros and bits itself, but the weights of {name!r} obey a "
            f"{type(obeyed).__name__.lower()} already: leave one of the two out"
        )
    if not settings.tuning.epochs:
        raise BadInput("adapt works during training: give it epochs, 20 for example")
    before = central.validated(slim.model)
    bounds = _bounds(settings)
    tuner = Tuner(slim, central, settings.tuning, "adapting")
    control, looks = Control(BITS), list[tuple[Control, Seen]]()
    _constrain(tuner, control, settings)
    every = max(round(tuner.epoch / settings.looks), 1)
    while tuner.done + every < tuner.planned:
        tuner.run(every)
        now = tuner.validated()
        seen = Seen(now.loss, points_lost(now, before), 1 - tuner.done / tuner.planned)
        looks.append((control, seen))
        control, last = next_control(control, seen, bounds), control
        if (control.share, control.bits) != (last.share, last.bits):
            _constrain(tuner, control, settings)
    adapted, done = tuner.finish()
    changed = tuple(
        LayerChange(name, f"{int((w == 0).sum()):,} of {w.numel():,} weights are zero, {control.bits} bits")
        for name, w in weights_of(adapted.model).items()
    )
    return adapted, TechniqueReport(changed=changed, plots=_plots(looks), steps=done.steps)


def _bounds(settings: Adapt) -> Bounds:
    return Bounds(
        points=settings.loss,
        size=settings.size,
        most=settings.most,
        least_bits=settings.least_bits,
        most_bits=BITS,
        patience=settings.patience,
    )


def _constrain(tuner: Tuner, control: Control, settings: Adapt) -> None:
    weights = {name: tuner.moved[name] for name in weights_of(tuner.model)}
    free = highest(torch.cat([w.abs().flatten() for w in weights.values()]), control.share)
    parts = torch.split(free, [w.numel() for w in weights.values()])
    masks = {name: part.view_as(w) for part, (name, w) in zip(parts, weights.items(), strict=True)}
    tuner.constrain(
        {
            name: grid_of(w * masks[name], control.bits, settings.granularity, settings.scheme, masks[name])
            for name, w in weights.items()
        }
    )


def _plots(looks: list[tuple[Control, Seen]]) -> dict[str, Plot]:
    at = tuple(1 - seen.left for _, seen in looks)
    followed = {
        "share of zeros": tuple(c.share for c, _ in looks),
        "bits": tuple(float(c.bits) for c, _ in looks),
        "points lost": tuple(s.points for _, s in looks),
    }
    return {
        f"{name} over training": Plot("share of the training done", name, (Curve(name, at, values),))
        for name, values in followed.items()
    }
