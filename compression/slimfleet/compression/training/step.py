"""One step of training: what local training on a device and fine-tuning of a compressed model have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from slimfleet.compression.checked_task import blamed, label_of
from slimfleet.compression.task import Examples, Task
from slimfleet.compression.types import Precision

Batch = TypeVar("Batch", bound=Examples)


class Optimizer(Protocol):
    """What a step needs of an optimiser, torch's or another."""

    def zero_grad(self) -> None:
        """Drop all gradients."""

    def step(self) -> object:
        """Move the parameters by their gradients."""


def train_step(
    model: nn.Module,
    task: Task,
    batch: Batch,
    optimizer: Optimizer,
    precision: Precision = "float32",
    *,
    loss: Callable[[nn.Module, Batch], Tensor] | None = None,
    adjust: Callable[[], None] | None = None,
) -> float:
    """Take one step on `batch`; the loss before it.

    `loss(model, batch)` stands in for the task's own where it is given; `adjust` may change the gradients. In bfloat16
    the forward pass runs under torch's autocast; weights stay float32. Raises BadTask for what the task raises.
    """
    optimizer.zero_grad()
    with blamed(label_of(task), "a step on what load gives"):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            value = task.loss(model(*batch.arguments), batch.targets) if loss is None else loss(model, batch)
        value.backward()  # type: ignore[no-untyped-call]
    if adjust is not None:
        adjust()
    optimizer.step()
    return float(value.detach())
