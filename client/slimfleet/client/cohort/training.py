"""Training of several devices at once: the steps of `local_sgd`, on a stacked model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slimfleet.client.cohort.stacked import Stacked
from slimfleet.compression import Examples, Task, Tensors, Training
from slimfleet.compression.checked_task import CheckedTask, blamed, label_of

__all__ = ["Batches", "TrainedTogether", "stacked_loss", "train_together"]

Batches = Sequence[Tensor]
"""Which of a device's examples each step takes, int64 [batch]."""


@dataclass(frozen=True, slots=True)
class TrainedTogether:
    """What training made of several devices, in their order."""

    tensors: Tensors
    """Name -> [devices, *shape]."""
    losses: Sequence[float]
    """Mean over the steps of each device."""


def train_together(
    stacked: Stacked,
    task: Task,
    start: Tensors,
    examples: Sequence[Examples],
    batches: Sequence[Batches],
    training: Training,
) -> TrainedTogether:
    """Train a copy of the model `start` for each device on its `examples`; all take as many steps, of the same sizes.

    SGD with momentum, and FedProx's pull to the start, as `local_sgd` has them: the two agree but for rounding.
    """
    weights = stacked.weights(start, len(examples))
    parameters = list(weights.values())
    origins = [each.clone() for each in parameters] if training.proximal else []
    velocities: list[Tensor] = []
    losses = []
    sizes = [len(places) for places in batches[0]]
    ordered = [each.take(torch.cat(list(places))) for each, places in zip(examples, batches, strict=True)]
    inputs = torch.stack([each.arguments[0] for each in ordered]).split(sizes, dim=1)
    targets = torch.stack([each.targets for each in ordered]).split(sizes, dim=1)
    loss = stacked_loss(task)
    with blamed(label_of(task), "a step on what load gives"):
        for taken, wanted in zip(inputs, targets, strict=True):
            for each in parameters:
                each.requires_grad_()
            value = loss(stacked(weights, taken), wanted)
            gradients = list(torch.autograd.grad(value.sum(), parameters))
            losses.append(value.detach())
            for each in parameters:
                each.requires_grad_(False)
            if training.proximal:
                pulls = torch._foreach_sub(parameters, origins)
                torch._foreach_add_(gradients, pulls, alpha=training.proximal)
            if training.momentum:
                if velocities:
                    torch._foreach_mul_(velocities, training.momentum)
                    torch._foreach_add_(velocities, gradients)
                else:
                    velocities = gradients
                gradients = velocities
            torch._foreach_add_(parameters, gradients, alpha=-training.learning_rate)
    means = torch.stack(losses).to(torch.float64).mean(0).tolist()
    return TrainedTogether({name: each.numpy() for name, each in weights.items()}, means)


def stacked_loss(task: Task) -> Callable[[Tensor, Tensor], Tensor]:
    """The losses [devices] of outputs and targets [devices, batch, ...].

    The checks of a `CheckedTask` ask for values of one device: they have passed in the rehearsal.
    """
    own = task.wrapped if isinstance(task, CheckedTask) else task
    loss: Callable[[Tensor, Tensor], Tensor] = torch.func.vmap(own.loss, randomness="error")
    return loss
