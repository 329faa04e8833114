"""Rounds of a cohort: each device keeps its own account, guard, policy, residual and codec, and is trained with others.

In virtual time what a round costs does not depend on when it is computed. So the account of a device is settled first,
step by step as its guard allows, and then those that take the same steps are trained at once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isclose
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from slimfleet.client.cohort.stacked import Stacked
from slimfleet.client.cohort.training import stacked_loss, train_together
from slimfleet.client.device import Device, Participant, TakenUp
from slimfleet.client.round import Begun, Round
from slimfleet.client.training import Trained, local_sgd
from slimfleet.client.workbench import SubModel
from slimfleet.compression import Assignment, BadInput, Examples, Payload, Report, Task, Tensors
from slimfleet.compression.tensors import load_tensors, tensors_of
from slimfleet.compression.threads import torch_threads

__all__ = ["CohortRounds", "Job", "Outcome", "rehearsed"]

AGREES = 1e-4
"""How far the loss of a stacked model may be from the model's own, as a share."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job:
    """One device's part of a cohort."""

    device: Participant
    assignment: Assignment
    payload: Payload


Outcome = tuple[Payload, Report] | Exception
"""What a device sends, or what it raised: the refusals of `Device.do_round`, and whatever foreign code raises."""


@dataclass(slots=True)
class _Part:
    """A job under way."""

    taken: TakenUp
    round_: Round
    begun: Begun
    batches: list[Tensor]
    """Which examples each step takes that the guard allows."""
    stopped_by: str | None


class CohortRounds:
    """Does rounds of virtual devices. The form in which several are trained at once is kept, by shape of the model."""

    def __init__(self) -> None:
        self._stacked: dict[bytes, Stacked | None] = {}

    def together(self, groups: Sequence[Sequence[Job]]) -> list[Outcome]:
        """Do the rounds of devices whose ledgers are in virtual time; the outcomes in their order.

        Devices of a group that have received the same model are trained at once. One that cannot be is trained by the
        plain loop, and so is one that stands in front of a `Device`, as a faulty one does. What a device does depends
        on its group alone.
        """
        models = _Models()
        with torch_threads(1):
            return [outcome for jobs in groups for outcome in self._group(jobs, models)]

    def _group(self, jobs: Sequence[Job], models: _Models) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}
        parts: dict[int, _Part] = {}
        for place, job in enumerate(jobs):
            found = _caught(self._begun, job, models)
            if isinstance(found, _Part):
                parts[place] = found
            else:
                outcomes[place] = _caught(_alone, job) if found is None else found
        for places in _alike(parts):
            outcomes |= zip(places, self._trained([parts[place] for place in places]), strict=True)
        return [outcomes[place] for place in range(len(jobs))]

    def _begun(self, job: Job, models: _Models) -> _Part | None:
        """The job, its account settled up to the end of training; None where the loop must do it."""
        device, assignment = job.device, job.assignment
        if not isinstance(device, Device) or device.threads != 1 or assignment.plan.precision != "float32":
            return None
        taken = device.take_up(assignment, job.payload)
        with taken.charged():
            taken.begin()
            received = models.of(taken)
            round_ = taken.round(received)
            if self._stack(round_) is None:
                return None
            begun = round_.begun()
            guard, batches, stopped_by = round_.guard(), list[Tensor](), None
            for places in islice(round_.places(), assignment.plan.local_steps):
                stopped_by = guard.binding()
                if stopped_by is not None:
                    break
                round_.stepped(guard, len(places))
                batches.append(places)
        return _Part(taken, round_, begun, batches, stopped_by)

    def _stack(self, round_: Round) -> Stacked | None:
        shape = round_.sub.index_map.schema.digest
        if shape not in self._stacked:
            self._stacked[shape] = rehearsed(round_.workbench.task, round_.sub.model, round_.data.train)
        return self._stacked[shape]

    def _trained(self, parts: Sequence[_Part]) -> list[Outcome]:
        """What devices send that train the same model; one by itself is trained by the loop, which is then as fast."""
        if len(parts) == 1:
            return [_caught(_trained_alone, parts[0])]
        first = parts[0].round_
        stacked = self._stack(first)
        assert stacked is not None
        trained = train_together(
            stacked,
            first.workbench.task,
            first.sub.tensors,
            [part.round_.data.train for part in parts],
            [part.batches for part in parts],
            first.assignment.training,
        )
        return [
            _caught(_ended, part, loss, {name: array[place] for name, array in trained.tensors.items()})
            for place, (part, loss) in enumerate(zip(parts, trained.losses, strict=True))
        ]


class _Models:
    """The received models of one cohort: what devices hold alike is decoded once."""

    def __init__(self) -> None:
        self._opened: dict[Hashable, SubModel] = {}
        self._last: Hashable = None

    def of(self, taken: TakenUp) -> SubModel:
        """The model that a device has received, loaded. Raises PayloadError as `Workbench.open` does."""
        held = taken.state.held
        key: Hashable = (
            taken.payload,
            tuple(
                (each.version, each.channels, each.snapshot.fingerprint_with(each.snapshot.plain))
                for each in held
            ),
        )
        if key not in self._opened:
            self._opened[key] = taken.device.workbench.open(taken.payload, held)
        elif key != self._last:
            load_tensors(self._opened[key].model, self._opened[key].tensors)
        self._last = key
        return self._opened[key]


def rehearsed(task: Task, model: nn.Module, examples: Examples) -> Stacked | None:
    """The stacked form of `model`, where it gives the same loss of a few examples as the model itself."""
    few = examples.take(slice(2))
    stacked = Stacked.of(model, few.arguments)
    if stacked is None:
        return None
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        expected = float(task.loss(model(*few.arguments), few.targets))
        try:
            outputs = stacked(stacked.weights(tensors_of(model), 2), torch.stack([few.arguments[0]] * 2))
            losses = stacked_loss(task)(outputs, torch.stack([few.targets] * 2)).tolist()
        except Exception:  # noqa: BLE001 - a foreign loss may not be one for several devices; the loop takes it
            return None
    return stacked if all(isclose(each, expected, rel_tol=AGREES) for each in losses) else None


def _trained_alone(part: _Part) -> Outcome:
    """The same by the plain loop, on the steps that the account allows."""
    round_ = part.round_
    model, examples = round_.sub.model, round_.data.train
    load_tensors(model, round_.sub.tensors)
    trained = local_sgd(
        model,
        round_.workbench.task,
        map(examples.take, part.batches),
        round_.assignment.plan,
        round_.assignment.training,
        may_step=lambda: None,
        stepped=lambda examples: None,
    )
    return _ended(part, trained.loss, tensors_of(model))


def _ended(part: _Part, loss: float, now: Tensors) -> Outcome:
    """What a device sends once it is trained."""
    with part.taken.charged():
        trained = Trained(loss, len(part.batches), part.stopped_by)
        encoded, report, leftover = part.round_.ended(part.begun, trained, now)
    return encoded, part.taken.done(part.round_.sub, report, leftover)


def _alone(job: Job) -> Outcome:
    return job.device.do_round(job.assignment, job.payload)


def _alike(parts: Mapping[int, _Part]) -> list[list[int]]:
    """The parts that can be trained at once, in order of their first."""
    groups: dict[Hashable, list[int]] = {}
    for place, part in parts.items():
        examples = part.round_.data.train
        inputs = examples.arguments[0]
        shapes = (inputs.shape[1:], inputs.dtype, examples.targets.shape[1:], examples.targets.dtype)
        # One that takes no step is refused, and nobody waits for it.
        key = (
            id(part.round_.sub),
            part.taken.assignment.training,
            shapes,
            place if not part.batches else None,
        )
        groups.setdefault(key, []).append(place)
    return list(groups.values())


def _caught(do: Callable[..., T], *arguments: Any) -> T | Exception:
    """What a call returns or raises. BadInput is raised again: it is about the task or the disk, not one device."""
    try:
        return do(*arguments)
    except BadInput:
        raise
    except Exception as error:  # noqa: BLE001 - whatever one device's code raises must not end the others' rounds
        return error
