"""Knowledge distillation: a model trains on what one or several teachers say, besides the labels.

Soft labels are the teachers' outputs at a temperature (Hinton, Vinyals and Dean 2015, arXiv 1503.02531). With several
teachers their weights are dynamic: on each example a teacher counts the more, the likelier it finds the right label
(after CA-MKD, Zhang, Chen and Wang 2022, arXiv 2201.00007, eq. 3). Hints draw the features of one layer to those of
the teacher's, through a linear map that is thrown away (FitNets, Romero et al. 2015, arXiv 1412.6550, eq. 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn
from torch.nn import functional as F

from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.technique import LayerChange, TechniqueReport
from slimfleet.compression.model.tuning import Loss, Tuner, Tuning
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
    tuning: Tuning = field(default_factory=Tuning)


def distil(slim: SlimModel, central: CentralTask, settings: Distil) -> tuple[SlimModel, TechniqueReport]:
    """Train on the soft labels of the central task's teachers. Raises BadInput where it has none."""
    if not central.teachers:
        raise BadInput("distil has no teacher: give one, such as the model before the recipe")
    loss = distillation_loss(central, settings)
    tuned, done = Tuner(slim, central, settings.tuning, "distilling", loss).finish()
    teachers = f"{len(central.teachers)} teacher{'s' * (len(central.teachers) > 1)}"
    return tuned, TechniqueReport(changed=(LayerChange("", f"trained with {teachers}"),), steps=done.steps)


def distillation_loss(central: CentralTask, settings: Distil) -> Loss:
    """The loss of a batch: alpha * T^2 * KL(teachers || student) + (1 - alpha) * the task's own.

    Outputs are logits [n, classes]; others are compared by their squared difference (regression).
    """

    def loss(model: nn.Module, batch: Examples) -> Tensor:
        outputs = model(*batch.arguments)
        with torch.no_grad():
            taught = [teacher(*batch.arguments) for teacher in central.teachers]
        own = central.loss(outputs, batch.targets)
        if not _are_logits(outputs, batch.targets):
            soft = sum((F.mse_loss(outputs, each) for each in taught), torch.zeros(())) / len(taught)
            return settings.alpha * soft + (1 - settings.alpha) * own
        return settings.alpha * _soft(outputs, taught, batch.targets, settings) + (1 - settings.alpha) * own

    return loss


def _are_logits(outputs: Any, targets: Tensor) -> bool:
    return (
        isinstance(outputs, Tensor)
        and outputs.dim() == 2
        and targets.dtype == torch.int64
        and targets.dim() == 1
    )


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
