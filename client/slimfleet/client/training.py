"""Local training: mini-batch SGD that checks before every step whether it may go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch
from torch import nn

from slimfleet.compression import Examples, Plan, Task, Training
from slimfleet.compression.training import Sgd, train_step


@dataclass(frozen=True, slots=True)
class Trained:
    """What local training did."""

    loss: float
    """Mean over the steps; 0 where there were none."""
    steps: int
    stopped_by: str | None
    """The constraint that ended training early."""


def local_sgd(
    model: nn.Module,
    task: Task,
    batches: Iterator[Examples],
    plan: Plan,
    training: Training,
    may_step: Callable[[], str | None],
    stepped: Callable[[int], None],
) -> Trained:
    """Train `model`, `prepared` for it, in place for at most `plan.local_steps` steps, each on the next of `batches`.

    `may_step` names the constraint that forbids another step, or None; `stepped` is told the number of
    examples of each step done. With `training.proximal` every step is also drawn to where the round began (FedProx,
    Li et al. 2020, eq. 2).
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    start = [p.detach().clone() for p in parameters] if training.proximal else []
    optimizer = Sgd(parameters, training.learning_rate, training.momentum)
    adjust = partial(_draw_to, start, parameters, training.proximal) if training.proximal else None
    total, steps, stopped_by = 0.0, 0, None
    for batch in islice(batches, plan.local_steps):
        stopped_by = may_step()
        if stopped_by is not None:
            break
        total += train_step(model, task, batch, optimizer, plan.precision, adjust=adjust)
        steps += 1
        stepped(len(batch))
    return Trained(total / max(steps, 1), steps, stopped_by)


def _draw_to(start: list[torch.Tensor], parameters: list[nn.Parameter], strength: float) -> None:
    """Add the gradient of strength/2 * |w - start|^2; a parameter that took no part in the loss has not moved."""
    for parameter, origin in zip(parameters, start, strict=True):
        if parameter.grad is not None:
            parameter.grad.add_(parameter.detach() - origin, alpha=strength)
