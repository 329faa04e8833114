"""Knowledge distillation: a model trains on what one or several teachers say, besides the labels.

Soft labels are the teachers' outputs at a temperature (Hinton, Vinyals and Dean 2015, arXiv 1503.02531). With several
teachers their weights are dynamic: on each example a teacher counts the more, the likelier it finds the right label
(after CA-MKD, Zhang, Chen and Wang 2022, arXiv 2201.00007, eq. 3). Hints draw the features of one layer to those of
a teacher's: `hints`.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn
from torch.nn import functional as F

from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.divergence import are_logits, squared_difference
from slimfleet.compression.model.hints import HintedLoss, hints_of
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.technique import LayerChange, TechniqueReport
from slimfleet.compression.model.tuning import Loss, Tuner, Tuning
from slimfleet.compression.pruning.removable import in_a_line
from slimfleet.compression.task import Examples

__all__ = ["Distil", "distil", "distillation_loss"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Distil:
    """Settings of `distil`."""

    temperature: Annotated[float, Gt(0), Le(100)] = 4.0
    alpha: Annotated[float, Ge(0), Le(1)] = 0.7
    """Weight of the soft labels; 1 - alpha is that of the task's own loss."""
    weighting: Literal["equal", "dynamic"] = "dynamic"
    """Of several teachers."""
    hint: str = ""
    """`layer=teacher_layer`, paths of layers whose features are drawn together; several joined by `+`. Of several
    teachers the first is meant."""
    hint_weight: Annotated[float, Gt(0), Le(1000)] = 1.0
    tuning: Tuning = field(default_factory=Tuning)


def distil(slim: SlimModel, central: CentralTask, settings: Distil) -> tuple[SlimModel, TechniqueReport]:
    """Train on what the central task's teachers say.

    Raises BadInput where it has none, where one does not take the task's inputs or gives outputs of other shapes, and
    where a hint names a layer that is not there.
    """
    if not central.teachers:
        raise BadInput("distil has no teacher: give one, such as the model before the recipe")
    _check_teachers(slim.model, central)
    loss = distillation_loss(central, settings)
    if pairs := hints_of(settings.hint):
        loss = HintedLoss(loss, settings.hint_weight, pairs, slim.copy().model.eval(), central)
    tuned, done = Tuner(slim, central, settings.tuning, "distilling", loss).finish()
    teachers = f"{len(central.teachers)} teacher{'s' * (len(central.teachers) > 1)}"
    hints = "".join(f", {ours} from {theirs}" for ours, theirs in pairs)
    return tuned, TechniqueReport(
        changed=(LayerChange("", f"trained with {teachers}{hints}"),), steps=done.steps
    )


def _check_teachers(model: nn.Module, central: CentralTask) -> None:
    with torch.no_grad():
        outputs = deepcopy(model).eval()(*central.example_inputs)
        for i, teacher in enumerate(central.teachers):
            try:
                taught = teacher(*central.example_inputs)
            except Exception as error:
                raise BadInput(
                    f"distil: teacher {i + 1}, a {type(teacher).__name__}, does not take the inputs of task "
                    f"{central.task.name!r}: {in_a_line(error)}"
                ) from error
            squared_difference(outputs, taught)


def distillation_loss(central: CentralTask, settings: Distil) -> Loss:
    """The loss of a batch: alpha * T^2 * KL(teachers || student) + (1 - alpha) * the task's own.

    This is for logits [n, classes] of class numbers [n]. Other outputs, tuples and dicts of tensors too, are compared
    by their squared difference, and all teachers count alike.
    """

    def loss(model: nn.Module, batch: Examples) -> Tensor:
        outputs = model(*batch.arguments)
        with torch.no_grad():
            taught = [teacher(*batch.arguments) for teacher in central.teachers]
        own = central.loss(outputs, batch.targets)
        if are_logits(outputs, batch.targets):
            soft = _soft(outputs, taught, batch.targets, settings)
        else:
            soft = torch.stack([squared_difference(outputs, each) for each in taught]).mean()
        return settings.alpha * soft + (1 - settings.alpha) * own

    return loss


def _soft(outputs: Tensor, taught: Sequence[Tensor], targets: Tensor, settings: Distil) -> Tensor:
    temperature = settings.temperature
    student = F.log_softmax(outputs / temperature, dim=1)
    terms = torch.stack(
        [F.kl_div(student, F.softmax(each / temperature, dim=1), reduction="none").sum(1) for each in taught]
    )
    return (teacher_weights(taught, targets, settings.weighting) * terms).sum(0).mean() * temperature**2


def teacher_weights(
    taught: Sequence[Tensor], targets: Tensor, weighting: Literal["equal", "dynamic"]
) -> Tensor:
    """How much each teacher counts on each example, [teachers, n]; they sum to 1.

    `taught`: logits [n, classes] of each; `targets`: int64 [n].
    """
    if weighting == "equal" or len(taught) == 1:
        return torch.full((len(taught), len(targets)), 1 / len(taught))
    likely = torch.stack([-F.cross_entropy(each, targets, reduction="none") for each in taught])
    return F.softmax(likely, dim=0)
