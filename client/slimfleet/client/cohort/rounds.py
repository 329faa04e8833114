"""Rounds of a cohort: each device keeps its own account, guard, policy and residual, and is trained with others.

In virtual time what a round costs does not depend on when it is computed. So the account of a device is settled first,
step by step as its guard allows, and then those that take the same steps are trained at once. Updates in plain float32
are encoded at once too; others by each device's own codec.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor

from slimfleet.client.cohort.forms import CPU, Form, rehearsed, trained_names
from slimfleet.client.cohort.memory import keep_freed_memory
from slimfleet.client.cohort.rule import FEWEST, vmap_pays
from slimfleet.client.cohort.training import train_together
from slimfleet.client.device import Device, Participant, TakenUp
from slimfleet.client.round import Begun, Round, envelope_of
from slimfleet.client.training import Trained, local_sgd
from slimfleet.client.workbench import SubModel
from slimfleet.compression import Assignment, BadInput, Payload, Report, Tensors
from slimfleet.compression.checked_task import blamed, label_of
from slimfleet.compression.codec import Encoded, encode_plain, is_plain
from slimfleet.compression.difference import changed
from slimfleet.compression.tensors import load_tensors, tensors_of
from slimfleet.compression.threads import torch_threads
from slimfleet.compression.training import has_single
from slimfleet.compression.wire import Header, unseal

__all__ = ["CohortRounds", "Job", "Outcome", "Sent"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job:
    """One device's part of a cohort."""

    device: Participant
    assignment: Assignment
    payload: Payload


@dataclass(frozen=True, slots=True)
class Sent:
    """What a device sends."""

    payload: Payload
    report: Report
    update: Tensors | None = None
    """The payload as its decoder will have it; None of a device that did its round by itself."""


Outcome = Sent | Exception
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

    @property
    def is_plain(self) -> bool:
        """Whether the update goes in float32 as it is."""
        assignment, schema = self.round_.assignment, self.round_.sub.index_map.schema
        return assignment.plan.nmse == 0 and not assignment.training.feedback and is_plain(schema)


class CohortRounds:
    """Does rounds of virtual devices, trained on `where`. Forms in which several are trained at once are kept, by shape
    of the model."""

    def __init__(self, where: torch.device = CPU) -> None:
        keep_freed_memory()
        self._where = where
        self._forms: dict[tuple[bytes, bool], Form | None] = {}

    def together(self, groups: Sequence[Sequence[Job]]) -> list[Outcome]:
        """Do the rounds of devices whose ledgers are in virtual time; the outcomes in their order.

        Devices of a group that have received the same model are trained at once. One that cannot be is trained by the
        plain loop, and one that stands in front of a `Device`, as a faulty one does, does its round by itself. What a
        device does depends on its group alone.
        """
        models = _Models()
        with torch_threads(1):
            return [outcome for jobs in groups for outcome in self._group(jobs, models)]

    def _group(self, jobs: Sequence[Job], models: _Models) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}
        parts: dict[int, _Part] = {}
        for place, job in enumerate(jobs):
            found = _caught(_begun, job, models)
            if isinstance(found, _Part):
                parts[place] = found
            else:
                outcomes[place] = _caught(_alone, job) if found is None else found
        for places in _alike(parts):
            outcomes |= zip(places, self._trained([parts[place] for place in places]), strict=True)
        return [outcomes[place] for place in range(len(jobs))]

    def _trained(self, parts: Sequence[_Part]) -> list[Outcome]:
        """What devices send that train the same model."""
        form = self._form(parts[0].round_) if len(parts) >= FEWEST else None
        if form is None:
            return [_caught(_trained_alone, part) for part in parts]
        round_ = parts[0].round_
        round_.prepare()
        with blamed(label_of(round_.workbench.task), "a step on what load gives"):
            trained = train_together(
                form,
                round_.sub.tensors,
                trained_names(round_.sub.model),
                [(part.round_.data.train, part.batches) for part in parts],
                round_.assignment.training,
                self._where,
            )
        found = zip(parts, trained.losses, _plain(parts, trained.tensors), strict=True)
        return [
            _caught(
                _ended, part, loss, {name: array[place] for name, array in trained.tensors.items()}, encoded
            )
            for place, (part, loss, encoded) in enumerate(found)
        ]

    def _form(self, round_: Round) -> Form | None:
        """The form for devices that train the model of a round; None where the loop is faster, or none does the same.

        It is tried with the first weights and the examples of the first device, wherever and whenever that is.
        """
        plan, sub, workbench = round_.assignment.plan, round_.sub, round_.workbench
        if plan.precision != "float32":
            return None
        vmaps = vmap_pays(sub.model, sub.work, plan.batch_size, self._where)
        shape = sub.index_map.schema.digest, vmaps
        if shape not in self._forms:
            first = sub.index_map.shrink(tensors_of(workbench.blueprint.model))
            load_tensors(sub.model, first)
            self._forms[shape] = rehearsed(
                workbench.task, sub.model, workbench.loaded.of(0), vmaps=vmaps, where=self._where
            )
        return self._forms[shape]


class _Models:
    """The received models of one cohort: what devices hold alike is decoded once."""

    def __init__(self) -> None:
        self._headers: dict[Payload, Header] = {}
        self._opened: dict[Hashable, SubModel] = {}

    def of(self, taken: TakenUp) -> SubModel:
        """The model that a device has received; its module may hold other weights by now. Raises PayloadError as
        `Workbench.open` does."""
        payload = taken.payload
        if payload not in self._headers:
            self._headers[payload] = unseal(payload).header
        header = self._headers[payload]
        # What is decoded depends on the model that a change builds on, and on no other that is held.
        held = [each for each in taken.state.held if each.version == header.base_version][:1]
        key: Hashable = (
            payload,
            tuple((each.channels, each.snapshot.fingerprint_with(each.snapshot.plain)) for each in held),
        )
        if key not in self._opened:
            self._opened[key] = taken.device.workbench.open(payload, held)
        return self._opened[key]


def _begun(job: Job, models: _Models) -> _Part | None:
    """The job, its account settled up to the end of training; None where its device must do it by itself."""
    device, assignment = job.device, job.assignment
    if not isinstance(device, Device) or device.threads != 1:
        return None
    taken = device.take_up(assignment, job.payload)
    with taken.charged():
        taken.begin()
        round_ = taken.round(models.of(taken))
        begun, single = _entered(taken, round_)
        guard, batches, stopped_by = round_.guard(), list[Tensor](), None
        for places in islice(round_.places(single=single), assignment.plan.local_steps):
            stopped_by = guard.binding()
            if stopped_by is not None:
                break
            round_.stepped(guard, len(places))
            batches.append(places)
    return _Part(taken, round_, begun, batches, stopped_by)


def _entered(taken: TakenUp, round_: Round) -> tuple[Begun, bool]:
    """What stands before training, and whether a batch of one example is of use. The model is asked only where there is
    something to ask."""
    if taken.assignment.evaluation is None and not has_single(
        len(round_.data.train), taken.assignment.plan.batch_size
    ):
        return round_.begun(), True
    load_tensors(round_.sub.model, round_.sub.tensors)
    with taken.drawing():
        return round_.begun(), round_.prepare()


def _trained_alone(part: _Part) -> Outcome:
    """The same by the plain loop, on the steps that the account allows."""
    round_ = part.round_
    model, examples = round_.sub.model, round_.data.train
    load_tensors(model, round_.sub.tensors)
    round_.prepare()
    with part.taken.drawing():
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


def _ended(part: _Part, loss: float, now: Tensors, encoded: Encoded | None = None) -> Outcome:
    """What a device sends once it is trained; its update may be encoded already."""
    taken = part.taken
    trained = Trained(loss, len(part.batches), part.stopped_by)
    with taken.charged():
        ended = part.round_.ended(part.begun, trained, now, encoded)
    report = taken.done(part.round_.sub, ended.report, ended.leftover)
    return Sent(ended.encoded.payload, report, ended.encoded.decoded)


def _plain(parts: Sequence[_Part], now: Tensors) -> list[Encoded | None]:
    """The updates of devices that have trained the same model to `now`, [devices, *shape], encoded at once.

    None where a device's own codec must see to it.
    """
    if not all(part.is_plain for part in parts):
        return [None] * len(parts)
    sub = parts[0].round_.sub
    schema = sub.index_map.schema
    updates = {
        spec.name: changed(now[spec.name], sub.tensors[spec.name], "weight") for spec in schema.weights
    }
    payloads = encode_plain(updates, schema, [envelope_of(part.round_.assignment) for part in parts])
    return [
        Encoded(payload, {name: array[place] for name, array in updates.items()})
        if payload is not None and len(payload) <= part.round_.assignment.uplink_limit(schema)
        else None
        for place, (part, payload) in enumerate(zip(parts, payloads, strict=True))
    ]


def _alone(job: Job) -> Outcome:
    return Sent(*job.device.do_round(job.assignment, job.payload))


def _alike(parts: Mapping[int, _Part]) -> list[list[int]]:
    """The parts that can be trained at once, in order of their first."""
    groups: dict[Hashable, list[int]] = {}
    for place, part in parts.items():
        examples, plan = part.round_.data.train, part.taken.assignment.plan
        shapes = tuple((each.shape[1:], each.dtype) for each in (*examples.arguments, examples.targets))
        key = (
            id(part.round_.sub),
            part.taken.assignment.training,
            shapes,
            # Batch normalisation has a mode of its own for batches of one.
            (plan.precision, min(plan.batch_size, len(examples)) == 1),
            # One that takes no step is refused, and nobody waits for it.
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
