"""Training of several devices at once: the steps of `local_sgd`, on a form of the model for several devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from slimfleet.client.cohort.batches import Batches, Gathered, fetched
from slimfleet.client.cohort.forms import CPU, Form, state_of
from slimfleet.compression import Examples, Tensors, Training

__all__ = ["TrainedTogether", "torch_device", "train_together"]


def torch_device(name: str) -> torch.device:
    """Where torch computes: `cpu`, or with `auto` the GPU where there is one."""
    return torch.device("cuda") if name == "auto" and torch.cuda.is_available() else CPU


@dataclass(frozen=True, slots=True)
class TrainedTogether:
    """What training made of several devices, in their order."""

    tensors: Tensors
    """Name -> [devices, *shape]."""
    losses: Sequence[float]
    """Mean over the steps of each device."""


def train_together(
    form: Form,
    start: Tensors,
    trained: Sequence[str],
    work: Sequence[tuple[Examples, Batches]],
    training: Training,
    where: torch.device = CPU,
) -> TrainedTogether:
    """Train a copy of the model `start` for each device on its examples, by as many steps as it has batches.

    SGD with momentum over the weights `trained`, and FedProx's pull to the start, as `local_sgd` has them: the two
    agree but for rounding. A step is computed `where` it is told, at once for the devices whose batches have the
    same size.
    """
    sizes = [[batch.numel() for batch in batches] for _, batches in work]
    # Those with the most steps come first, and those that take alike batches beside each other: the devices of a step
    # whose batches have one size are then a slice, or a few.
    order = sorted(range(len(work)), key=lambda place: (-len(sizes[place]), sizes[place]))
    sizes = [sizes[place] for place in order]
    batches = Gathered([work[place] for place in order], sizes, where)
    state = state_of(start, len(order), where)
    weights = [state[name] for name in trained]
    buffers = {name: each for name, each in state.items() if name not in trained}
    descent = _Descent(weights, training)
    losses = torch.zeros(len(order), dtype=torch.float64, device=where)
    for step in range(len(sizes[0])):
        for rows, size in _runs([each[step] for each in sizes if len(each) > step]):
            leaves = [each[rows].detach().requires_grad_() for each in weights]
            now = dict(zip(trained, leaves, strict=True)) | {
                name: each[rows] for name, each in buffers.items()
            }
            *inputs, targets = batches.of(rows, step, size)
            found = form.losses(now, inputs, targets)
            descent.step(rows, leaves, list(torch.autograd.grad(found.sum(), leaves)))
            losses[rows].add_(found.detach())
    steps = torch.tensor([len(each) for each in sizes])
    back = torch.empty(len(order), dtype=torch.int64)
    back[order] = torch.arange(len(order))
    means = (losses.cpu() / steps.clamp(min=1))[back].tolist()
    if order != list(range(len(order))):
        state = {name: each[back.to(where)] for name, each in state.items()}
    return TrainedTogether({name: fetched(each).numpy() for name, each in state.items()}, means)


class _Descent:
    """SGD with momentum over stacked weights, as torch's optimiser does it."""

    def __init__(self, weights: Sequence[Tensor], training: Training) -> None:
        self._training = training
        self._origins = [each.clone() for each in weights] if training.proximal else []
        self._velocities = [torch.zeros_like(each) for each in weights] if training.momentum else []

    def step(self, rows: slice, weights: list[Tensor], gradients: list[Tensor]) -> None:
        """Move `weights`, those of the devices `rows`, in place."""
        training = self._training
        with torch.no_grad():
            if training.proximal:
                origins = [each[rows] for each in self._origins]
                torch._foreach_add_(gradients, torch._foreach_sub(weights, origins), alpha=training.proximal)
            if training.momentum:
                velocities = [each[rows] for each in self._velocities]
                torch._foreach_mul_(velocities, training.momentum)
                torch._foreach_add_(velocities, gradients)
                gradients = velocities
            torch._foreach_add_(weights, gradients, alpha=-training.learning_rate)


def _runs(sizes: Sequence[int]) -> list[tuple[slice, int]]:
    """Devices beside each other whose batches have one size, and that size."""
    found, begin = [], 0
    for size, run in groupby(sizes):
        end = begin + len(list(run))
        found.append((slice(begin, end), size))
        begin = end
    return found
