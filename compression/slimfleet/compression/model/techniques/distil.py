"""Knowledge distillation: a model trains on what one or several teachers say, besides the labels (`soft_labels`).

Hints draw the features of one layer to those of a teacher's (`hints`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Gt, Le

from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.technique import LayerChange, TechniqueReport
from slimfleet.compression.model.training.hints import HintedLoss, hints_of
from slimfleet.compression.model.training.soft_labels import own_loss
from slimfleet.compression.model.training.tuning import Tuner, Tuning, soft_loss

__all__ = ["Distil", "distil"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Distil:
    """Settings of `distil`."""

    hint: str = ""
    """`layer=teacher_layer`, paths of layers whose features are drawn together; several joined by `+`. Of several
    teachers the first is meant."""
    hint_weight: Annotated[float, Gt(0), Le(1000)] = 1.0
    tuning: Tuning = field(default_factory=lambda: Tuning(soft_labels=0.7))


def distil(slim: SlimModel, central: CentralTask, settings: Distil) -> tuple[SlimModel, TechniqueReport]:
    """Train on what the central task's teachers say.

    Raises BadInput where it has none, where one does not take the task's inputs or gives outputs of other shapes, where
    they count for nothing, and where a hint names a layer that is not there.
    """
    if not central.teachers:
        raise BadInput("distil has no teacher: give one, such as the model before the recipe")
    student = slim.copy().model.eval()
    loss, pairs = soft_loss(student, central, settings.tuning), hints_of(settings.hint)
    if pairs:
        loss = HintedLoss(loss or own_loss(central), settings.hint_weight, pairs, student, central)
    elif loss is None:
        raise BadInput(
            "distil: soft_labels is 0, so that the teachers do not count: raise it, or give a hint"
        )
    tuned, done = Tuner(slim, central, settings.tuning, "distilling", loss).finish()
    teachers = f"{len(central.teachers)} teacher{'s' * (len(central.teachers) > 1)}"
    hints = "".join(f", {ours} from {theirs}" for ours, theirs in pairs)
    return tuned, TechniqueReport(
        changed=(LayerChange("", f"trained with {teachers}{hints}"),), steps=done.steps
    )
