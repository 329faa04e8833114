"""Local training: mini-batch SGD that asks before every step whether it may go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from slimfleet.compression import BadInput, Examples, Plan, Task, Training


@dataclass(frozen=True, slots=True)
class Trained:
    """What local training did: mean loss over `steps` (0 where there were none), and the constraint that ended it
    early."""

    loss: float
    steps: int
    stopped_by: str | None


def local_sgd(
    model: nn.Module,
    task: Task,
    examples: Examples,
    plan: Plan,
    training: Training,
    rng: np.random.Generator,
    may_step: Callable[[], str | None],
    stepped: Callable[[int], None],
) -> Trained:
    """Train `model` in place for at most `plan.local_steps` steps, on mini-batches shuffled by `rng`.

    `may_step` names the constraint that forbids another step, or None; `stepped` is told the number of
    examples of each step done. With `training.proximal` every step is also drawn to where the round began (FedProx,
    Li et al. 2020, eq. 2). In bfloat16 the forward pass runs under torch's autocast; weights stay float32.

    Raises BadInput where there are no examples.
    """
    if len(examples) == 0:
        raise BadInput("this device has no examples to train on: leave it out, or give it data")
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    start = [p.detach().clone() for p in parameters] if training.proximal else []
    optimizer = torch.optim.SGD(parameters, lr=training.learning_rate, momentum=training.momentum)
    total, steps, stopped_by = 0.0, 0, None
    for batch in islice(_batches(len(examples), plan.batch_size, rng), plan.local_steps):
        stopped_by = may_step()
        if stopped_by is not None:
            break
        index = torch.from_numpy(batch)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=plan.precision == "bfloat16"):
            loss = task.loss(model(examples.inputs[index]), examples.targets[index])
        loss.backward()  # type: ignore[no-untyped-call]
        if training.proximal:
            _draw_to(start, parameters, training.proximal)
        optimizer.step()
        total += float(loss.detach())
        steps += 1
        stepped(len(batch))
    return Trained(total / max(steps, 1), steps, stopped_by)


def _draw_to(start: list[torch.Tensor], parameters: list[nn.Parameter], strength: float) -> None:
    """Add the gradient of strength/2 * |w - start|^2; a parameter that took no part in the loss has not moved."""
    for parameter, origin in zip(parameters, start, strict=True):
        if parameter.grad is not None:
            parameter.grad.add_(parameter.detach() - origin, alpha=strength)


def _batches(examples: int, batch_size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Shuffled mini-batches, epoch after epoch, without end; the last of an epoch may be smaller."""
    while True:
        order = rng.permutation(examples)
        for begin in range(0, examples, batch_size):
            yield order[begin : begin + batch_size]
