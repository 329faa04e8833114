"""Training of several devices at once: the steps of `local_sgd`, on a stacked model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    """Train a copy of the model `start` for each device on its `examples`, each by as many steps as it has batches.

    SGD with momentum, and FedProx's pull to the start, as `local_sgd` has them: the two agree but for rounding. A step
    is computed at once for the devices whose batches have the same size.
    """
    # Those with the most steps come first: the devices that are still at work are then a slice.
    order = sorted(range(len(batches)), key=lambda place: -len(batches[place]))
    taken = [_taken(examples[place], batches[place]) for place in order]
    weights = stacked.weights(start, len(order))
    descent = _Descent(weights, training)
    losses = torch.zeros(len(order), dtype=torch.float64)
    loss = stacked_loss(task)
    with blamed(label_of(task), "a step on what load gives"):
        for step in range(len(taken[0])):
            working = sum(len(each) > step for each in taken)
            leaves = {name: each[:working].detach().requires_grad_() for name, each in weights.items()}
            total = torch.zeros(())
            for same in _of_same_size([each[step] for each in taken[:working]]):
                chosen = leaves if len(same) == working else {n: each[same] for n, each in leaves.items()}
                inputs = torch.stack([taken[place][step].arguments[0] for place in same])
                targets = torch.stack([taken[place][step].targets for place in same])
                value = loss(stacked(chosen, inputs), targets)
                losses[same] += value.detach()
                total = total + value.sum()
            descent.step(list(leaves.values()), list(torch.autograd.grad(total, list(leaves.values()))))
    steps = torch.tensor([len(each) for each in taken])
    back = torch.empty(len(order), dtype=torch.int64)
    back[order] = torch.arange(len(order))
    means = (losses / steps.clamp(min=1))[back].tolist()
    return TrainedTogether({name: each[back].numpy() for name, each in weights.items()}, means)


class _Descent:
    """SGD with momentum over stacked weights, as torch's optimiser does it."""

    def __init__(self, weights: Mapping[str, Tensor], training: Training) -> None:
        self._training = training
        self._origins = [each.clone() for each in weights.values()] if training.proximal else []
        self._velocities: list[Tensor] = []

    def step(self, weights: list[Tensor], gradients: list[Tensor]) -> None:
        """Move `weights`, of the first so many devices, in place."""
        training, count = self._training, len(weights[0])
        with torch.no_grad():
            if training.proximal:
                origins = [each[:count] for each in self._origins]
                torch._foreach_add_(gradients, torch._foreach_sub(weights, origins), alpha=training.proximal)
            if training.momentum:
                if self._velocities:
                    self._velocities = [each[:count] for each in self._velocities]
                    torch._foreach_mul_(self._velocities, training.momentum)
                    torch._foreach_add_(self._velocities, gradients)
                else:
                    self._velocities = gradients
                gradients = self._velocities
            torch._foreach_add_(weights, gradients, alpha=-training.learning_rate)


def _taken(examples: Examples, batches: Batches) -> list[Examples]:
    """The batches of one device."""
    ordered = examples.take(torch.cat(list(batches)))
    sizes = [len(places) for places in batches]
    inputs, targets = torch.split(ordered.arguments[0], sizes), torch.split(ordered.targets, sizes)
    return [Examples(*each) for each in zip(inputs, targets, strict=True)]


def _of_same_size(batches: Sequence[Examples]) -> list[list[int]]:
    """Places of batches, by their sizes."""
    sizes: dict[int, list[int]] = {}
    for place, batch in enumerate(batches):
        sizes.setdefault(len(batch), []).append(place)
    return list(sizes.values())


def stacked_loss(task: Task) -> Callable[[Tensor, Tensor], Tensor]:
    """The losses [devices] of outputs and targets [devices, batch, ...].

    The checks of a `CheckedTask` ask for values of one device: they have passed in the rehearsal.
    """
    own = task.wrapped if isinstance(task, CheckedTask) else task
    loss: Callable[[Tensor, Tensor], Tensor] = torch.func.vmap(own.loss, randomness="error")
    return loss
