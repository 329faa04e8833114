"""Local training: mini-batch SGD that checks before every step whether it may go on.

The last batch of an epoch may be smaller, as torch's `DataLoader` has it. Some models cannot train on a single example:
batch normalisation, for one, has no variance of a single value. With such a model a last batch of one example is left
out, and the epoch after it begins. Where every batch has one example, because the plan or the device has no more, batch
normalisation keeps to its running statistics, as in evaluation, and they stay as they are. The number of steps is the
planned one in each case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from math import isfinite

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from slimfleet.compression import BadInput, BudgetExceeded, Examples, Plan, Task, Training
from slimfleet.compression.checked_task import blamed, label_of


@dataclass(frozen=True, slots=True)
class Trained:
    """What local training did."""

    loss: float
    """Mean over the steps; 0 where there were none."""
    steps: int
    stopped_by: str | None
    """The constraint that ended training early."""


def prepared(model: nn.Module, task: Task, examples: Examples, batch_size: int) -> bool:
    """Put `model` into training mode for batches of these examples; whether a last batch of one of them is of use.

    Raises BudgetExceeded("examples") where all batches are of one example and the model cannot train on it.
    """
    model.train()
    alone = min(batch_size, len(examples)) == 1
    if (not alone and len(examples) % batch_size != 1) or _trains_on_one(model, task, examples):
        return True
    if alone:
        for module in model.modules():
            if isinstance(module, _NormBase):
                module.eval()
        if not _trains_on_one(model, task, examples):
            raise BudgetExceeded(
                "examples",
                f"the model cannot train on one example at a time, and a batch has no more "
                f"({len(examples)} examples, batch size {batch_size}): give this device two, or a larger batch size",
            )
    return alone


def _trains_on_one(model: nn.Module, task: Task, examples: Examples) -> bool:
    """Whether a single example has a loss in the mode that the model is in. The model stays as it is."""
    before = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            one = examples.take(slice(1))
            return isfinite(float(task.loss(model(*one.arguments), one.targets)))
    except Exception:  # noqa: BLE001 - whatever it raises, and a fault that has other causes shows in the first step
        return False
    finally:
        for module, name, buffer, value in before:
            buffer.data = value  # its shape too
            setattr(module, name, buffer)


def shuffled(
    examples: Examples, batch_size: int, rng: np.random.Generator, *, single: bool = True
) -> Iterator[Examples]:
    """Mini-batches in an order drawn from `rng`, epoch after epoch, without end; the last of an epoch may be smaller.

    Without `single` one of a single example is left out. Raises BadInput where there are no examples.
    """
    if len(examples) == 0:
        raise BadInput("this device has no examples to train on: leave it out, or give it data")
    while True:
        order = rng.permutation(len(examples))
        for begin in range(0, len(examples) - (not single), batch_size):
            index = torch.from_numpy(order[begin : begin + batch_size])
            yield examples.take(index)


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
    Li et al. 2020, eq. 2). In bfloat16 the forward pass runs under torch's autocast; weights stay float32.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    start = [p.detach().clone() for p in parameters] if training.proximal else []
    optimizer = torch.optim.SGD(parameters, lr=training.learning_rate, momentum=training.momentum)
    total, steps, stopped_by = 0.0, 0, None
    for batch in islice(batches, plan.local_steps):
        stopped_by = may_step()
        if stopped_by is not None:
            break
        optimizer.zero_grad(set_to_none=True)
        with blamed(label_of(task), "a step on what load gives"):
            with torch.autocast("cpu", torch.bfloat16, enabled=plan.precision == "bfloat16"):
                loss = task.loss(model(*batch.arguments), batch.targets)
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
