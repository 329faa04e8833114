"""Exchange: what lies between the coordinator's thread and the calls of devices.

For the coordinator it is a link; for a server the desk at which a device, known by its certificate, asks for work,
takes its model, leaves its update and reports. Every method locks for a moment and waits for nobody.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from threading import Lock

from slimfleet.compression import Condition, PayloadError, Report
from slimfleet.compression.device_api import CHUNK_BYTES, Done, Refusal
from slimfleet.compression.messages import MAX_TEXT, Registration, parse, text_of
from slimfleet.coordinator.entries import Received
from slimfleet.coordinator.gateway.refusal import Refused
from slimfleet.coordinator.sending.dispatch import Dispatch
from slimfleet.coordinator.transport.link import Came, Said
from slimfleet.coordinator.transport.refused import device_refusal, worked_s

__all__ = ["Exchange", "Job"]

INTRODUCTIONS_S = 60.0
"""A device is listened to again after this time when it introduces itself unasked, or says what makes no sense."""


@dataclass(slots=True)
class Job:
    """Work for one device, and what has come of its update."""

    dispatch: Dispatch
    assignment_json: str
    model_sha256: bytes
    limit_bytes: int
    update: bytearray = field(default_factory=bytearray)
    update_sha256: bytes = b""


@dataclass(slots=True)
class _Desk:
    """One device at the gateway."""

    heard_s: float = -inf
    introduced_s: float = -inf
    is_asked: bool = False
    job: Job | None = None
    answered: int | None = None
    """The plan that it reported last."""


class Exchange:
    """The devices of a gateway, by node. `clock` is in seconds; `away_s` as `GatewaySettings` has it."""

    def __init__(self, away_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._away_s, self._clock = away_s, clock
        self._lock = Lock()
        self._desks: dict[int, _Desk] = {}
        self._said: list[Said] = []
        self._conditions: dict[int, Condition] = {}
        self._came: list[Came] = []
        self.wake: Callable[[int], None] = lambda node: None
        """Called, by any thread and without the lock, when there is something new for a node."""

    # --- for the coordinator: a link

    def nodes(self) -> Sequence[int]:
        """Devices that were heard of late, or are at work."""
        since_s = self._clock() - self._away_s
        with self._lock:
            return [n for n, desk in self._desks.items() if desk.heard_s >= since_s or desk.job is not None]

    def ask(self, nodes: Mapping[int, float | None]) -> None:
        """The next check-in of each must introduce it."""
        with self._lock:
            for node in nodes:
                self._desk(node).is_asked = True
        for node in nodes:
            self.wake(node)

    def said(self) -> Sequence[Said]:
        """Introductions in order, then the last condition of each device."""
        with self._lock:
            said = [*self._said, *(Said(node, each) for node, each in self._conditions.items())]
            self._said.clear()
            self._conditions.clear()
            for each in said:
                if isinstance(each.what, Registration):
                    self._desk(each.node).is_asked = False
            return said

    def send(self, dispatches: Sequence[Dispatch]) -> None:
        """Put work on the desks of devices, whether or not they are there."""
        payloads = {id(each.payload): each.payload for each in dispatches}
        digests = {key: hashlib.sha256(payload).digest() for key, payload in payloads.items()}
        jobs = {each.node: _job(each, digests[id(each.payload)]) for each in dispatches}
        with self._lock:
            for node, job in jobs.items():
                self._desk(node).job = job
        for node in jobs:
            self.wake(node)

    def came(self) -> Sequence[Came]:
        """Answers in order."""
        with self._lock:
            came, self._came = self._came, []
            return came

    def is_waiting(self) -> bool:
        """Whether a device has work, or an answer has not been taken."""
        with self._lock:
            return bool(self._came) or any(desk.job is not None for desk in self._desks.values())

    def forget(self, plan_ids: Collection[int]) -> None:
        """Take work from the desks."""
        with self._lock:
            for desk in self._desks.values():
                if desk.job is not None and desk.job.dispatch.plan_id in plan_ids:
                    desk.job = None
            self._came = [each for each in self._came if each.plan_id not in plan_ids]

    # --- for devices

    def check_in(self, node: int, registration_json: str, condition_json: str) -> None:
        """A device is there. Raises Refused where it says what cannot be understood."""
        problem: PayloadError | None = None
        try:
            condition = parse(Condition, condition_json) if condition_json else None
            introduction = parse(Registration, registration_json) if registration_json else None
        except PayloadError as error:
            condition, introduction, problem = None, None, error
        now_s, said = self._clock(), introduction if problem is None else str(problem)
        with self._lock:
            desk = self._desk(node)
            desk.heard_s = now_s if problem is None else desk.heard_s
            if condition is not None:
                self._conditions[node] = condition
            if said is not None and (desk.is_asked or now_s - desk.introduced_s >= INTRODUCTIONS_S):
                desk.introduced_s, desk.is_asked = now_s, False
                self._said.append(Said(node, said))
        if problem is not None:
            raise Refused("message", str(problem)) from problem

    def still_there(self, node: int) -> None:
        """A device that waits for work is heard all the time."""
        with self._lock:
            self._desk(node).heard_s = self._clock()

    def next(self, node: int) -> Job | bool:
        """The work of a device; where there is none, whether it must introduce itself."""
        with self._lock:
            desk = self._desk(node)
            return desk.job if desk.job is not None else desk.is_asked

    def job(self, node: int, plan_id: int) -> Job:
        """The work that a device has under this number. Raises Refused where it has none."""
        with self._lock:
            return self._its_job(node, plan_id)

    def upload(self, node: int, plan_id: int, update_sha256: bytes, offset: int, data: bytes) -> int:
        """Add bytes to an update; returns how many have come. Those that had come before are left out.

        Raises Refused where they do not follow on those, or are more than the plan allows.
        """
        if len(data) > CHUNK_BYTES:
            raise Refused("size", f"a chunk of {len(data)} bytes: the limit is {CHUNK_BYTES}")
        with self._lock:
            job = self._its_job(node, plan_id)
            if job.update_sha256 != update_sha256:
                job.update, job.update_sha256 = bytearray(), bytes(update_sha256)
            there = len(job.update)
            if offset > there:
                raise Refused("offset", f"bytes from {offset} on: {there} have come, go on from there")
            if offset + len(data) > job.limit_bytes:
                raise Refused(
                    "size",
                    f"an update of at least {offset + len(data)} bytes: the limit is {job.limit_bytes}",
                )
            job.update += data[there - offset :]
            self._desk(node).heard_s = self._clock()
            return len(job.update)

    def done(self, node: int, plan_id: int, done: Done) -> bool:
        """The round of a plan was done; returns whether that had been reported before.

        Raises Refused where its update has not come whole.
        """
        if len(done.report_json) > MAX_TEXT:
            raise Refused("size", f"a report of {len(done.report_json)} characters: the limit is {MAX_TEXT}")
        with self._lock:
            if self._is_repeated(node, plan_id):
                return True
            job = self._its_job(node, plan_id)
            update, sha256 = bytes(job.update), job.update_sha256
        is_whole = sha256 == done.update_sha256 == hashlib.sha256(update).digest()
        try:
            parsed = parse(Report, done.report_json)
        except PayloadError:  # judged with the update, and counted with the round
            parsed = None
        received = Received(plan_id=plan_id, report=done.report_json, payload=update, parsed=parsed)
        with self._lock:
            if self._is_repeated(node, plan_id):
                return True
            if self._its_job(node, plan_id) is not job or not is_whole:
                job.update = bytearray()
                raise Refused("digest", f"the {len(update)} bytes that have come are not that update")
            self._answer(node, Came(job.dispatch, plan_id, worked_s(parsed), received))
        return False

    def refuse(self, node: int, plan_id: int, refusal: Refusal) -> bool:
        """A device does not do a plan; returns whether that had been reported before."""
        with self._lock:
            if self._is_repeated(node, plan_id):
                return True
            job = self._its_job(node, plan_id)
            failed = device_refusal(plan_id, refusal.reason, refusal.message, refusal.spent_json or None)
            self._answer(node, Came(job.dispatch, plan_id, worked_s(failed.spent), failed))
        return False

    # --- under the lock

    def _desk(self, node: int) -> _Desk:
        return self._desks.setdefault(node, _Desk())

    def _is_repeated(self, node: int, plan_id: int) -> bool:
        return self._desk(node).answered == plan_id

    def _its_job(self, node: int, plan_id: int) -> Job:
        job = self._desk(node).job
        if job is None or job.dispatch.plan_id != plan_id:
            raise Refused("unknown_plan", f"this device has no plan {plan_id}: check in again")
        return job

    def _answer(self, node: int, came: Came) -> None:
        desk = self._desk(node)
        desk.job, desk.answered, desk.heard_s = None, came.plan_id, self._clock()
        self._came.append(came)


def _job(dispatch: Dispatch, model_sha256: bytes) -> Job:
    return Job(
        dispatch=dispatch,
        assignment_json=text_of(dispatch.assignment),
        model_sha256=model_sha256,
        limit_bytes=dispatch.assignment.uplink_limit(dispatch.update_map.schema),
    )
