"""Training of several devices at once: the steps of `local_sgd`, on a form of the model for several devices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slimfleet.client.cohort.forms import CPU, Form, state_of
from slimfleet.compression import Examples, Tensors, Training

__all__ = ["Batches", "TrainedTogether", "torch_device", "train_together"]

Batches = Sequence[Tensor]
"""Which of a device's examples each step takes, int64 [batch]."""


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
    # Those with the most steps come first: the devices that are still at work are then a slice.
    order = sorted(range(len(work)), key=lambda place: -len(work[place][1]))
    taken = _taken([work[place] for place in order], where)
    state = state_of(start, len(order), where)
    descent = _Descent([state[name] for name in trained], training)
    losses = torch.zeros(len(order), dtype=torch.float64, device=where)
    for step in range(len(taken[0])):
        working = sum(len(each) > step for each in taken)
        now = {name: each[:working] for name, each in state.items()}
        leaves = [now[name].detach().requires_grad_() for name in trained]
        now |= zip(trained, leaves, strict=True)
        total = torch.zeros((), device=where)
        for same in _of_same_size([each[step] for each in taken[:working]]):
            value = _losses(form, now, trained, same, [taken[place][step] for place in same])
            losses[same] += value.detach()
            total = total + value.sum()
        descent.step(leaves, list(torch.autograd.grad(total, leaves)))
    steps = torch.tensor([len(each) for each in taken])
    back = torch.empty(len(order), dtype=torch.int64)
    back[order] = torch.arange(len(order))
    means = (losses.cpu() / steps.clamp(min=1))[back].tolist()
    if order != list(range(len(order))):
        state = {name: each[back.to(where)] for name, each in state.items()}
    return TrainedTogether({name: _fetched(each).numpy() for name, each in state.items()}, means)


def _losses(
    form: Form,
    now: Mapping[str, Tensor],
    trained: Iterable[str],
    same: list[int],
    batches: Sequence[Examples],
) -> Tensor:
    """Losses [devices] of a step of the devices `same`, whose batches have one size."""
    inputs = [torch.stack(each) for each in zip(*(batch.arguments for batch in batches), strict=True)]
    targets = torch.stack([batch.targets for batch in batches])
    if len(same) == len(next(iter(now.values()))):
        return form.losses(now, inputs, targets)
    some = {name: each[same] for name, each in now.items()}
    losses = form.losses(some, inputs, targets)
    for name in now.keys() - trained:
        now[name][same] = some[name]
    return losses


class _Descent:
    """SGD with momentum over stacked weights, as torch's optimiser does it."""

    def __init__(self, weights: Sequence[Tensor], training: Training) -> None:
        self._training = training
        self._origins = [each.clone() for each in weights] if training.proximal else []
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


def _taken(work: Sequence[tuple[Examples, Batches]], where: torch.device) -> list[list[Examples]]:
    """The batches of each device."""
    ordered = [examples.take(torch.cat(list(batches))) for examples, batches in work]
    columns = zip(*((*each.arguments, each.targets) for each in ordered), strict=True)
    there = zip(*(_sent(column, where) for column in columns), strict=True)
    found = []
    for (_, batches), own in zip(work, there, strict=True):
        parts = [torch.split(each, [len(places) for places in batches]) for each in own]
        found.append([Examples(tuple(each[:-1]), each[-1]) for each in zip(*parts, strict=True)])
    return found


def _sent(tensors: Sequence[Tensor], where: torch.device) -> Sequence[Tensor]:
    """Tensors of several devices; to a GPU they go as one, since each copy there costs as much as a small batch."""
    if where.type == "cpu":
        return tensors
    sizes = [len(each) for each in tensors]
    whole = _unpaged((sum(sizes), *tensors[0].shape[1:]), tensors[0].dtype)
    return torch.split(torch.cat(list(tensors), out=whole).to(where), sizes)


def _fetched(tensor: Tensor) -> Tensor:
    """A tensor on the processor."""
    return tensor if tensor.device.type == "cpu" else _unpaged(tensor.shape, tensor.dtype).copy_(tensor)


def _unpaged(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Memory that a GPU reads and writes by itself, at ten times the speed; torch keeps it for the next time."""
    return torch.empty(shape, dtype=dtype, pin_memory=True)


def _of_same_size(batches: Sequence[Examples]) -> list[list[int]]:
    """Places of batches, by their sizes."""
    sizes: dict[int, list[int]] = {}
    for place, batch in enumerate(batches):
        sizes.setdefault(len(batch), []).append(place)
    return list(sizes.values())
