"""Soft labels: a loss that draws a model to what one or several teachers say, besides the task's own.

They are the teachers' outputs at a temperature (Hinton, Vinyals and Dean 2015, arXiv 1503.02531). With several teachers
their weights are dynamic: on each example a teacher counts the more, the likelier it finds the right label (after
CA-MKD, Zhang, Chen and Wang 2022, arXiv 2201.00007, eq. 3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.evaluation.divergence import are_logits, squared_difference
from slimfleet.compression.model.training.teachers import Batch

__all__ = ["Loss", "Weighting", "distillation_loss", "own_loss", "teacher_weights"]

Loss = Callable[[nn.Module, Batch], Tensor]
"""Mean loss of a model on a batch, 0-d. One that is a module has parameters of its own, which are trained too."""

Weighting = Literal["equal", "dynamic"]


def own_loss(central: CentralTask) -> Loss:
    """The task's own."""
    return lambda model, batch: central.loss(model(*batch.arguments), batch.targets)


def distillation_loss(central: CentralTask, share: float, temperature: float, weighting: Weighting) -> Loss:
    """The loss of a batch: share * T^2 * KL(teachers || student) + (1 - share) * the task's own.

    This is for logits [n, classes] of class numbers [n]. Other outputs, tuples and dicts of tensors too, are compared
    by their squared difference, and all teachers count alike.
    """

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        outputs = model(*batch.arguments)
        taught = central.teachers.say(batch)
        own = central.loss(outputs, batch.targets)
        if are_logits(outputs, batch.targets):
            soft = _soft(outputs.float(), taught, batch.targets, temperature, weighting)
        else:
            soft = torch.stack([squared_difference(outputs, each) for each in taught]).mean()
        return share * soft + (1 - share) * own

    return loss


def _soft(
    outputs: Tensor, taught: Sequence[Tensor], targets: Tensor, temperature: float, weighting: Weighting
) -> Tensor:
    student = F.log_softmax(outputs / temperature, dim=1)
    wanted = [F.softmax(each.float() / temperature, dim=1) for each in taught]
    terms = torch.stack([F.kl_div(student, each, reduction="none").sum(1) for each in wanted])
    return (teacher_weights(taught, targets, weighting) * terms).sum(0).mean() * temperature**2


def teacher_weights(taught: Sequence[Tensor], targets: Tensor, weighting: Weighting) -> Tensor:
    """How much each teacher counts on each example, [teachers, n]; they sum to 1.

    `taught`: logits [n, classes] of each; `targets`: int64 [n].
    """
    if weighting == "equal" or len(taught) == 1:
        return torch.full((len(taught), len(targets)), 1 / len(taught))
    likely = torch.stack([-F.cross_entropy(each, targets, reduction="none") for each in taught])
    return F.softmax(likely, dim=0)
