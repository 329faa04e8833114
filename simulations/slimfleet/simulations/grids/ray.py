"""Ray engine: a few workers, each doing many devices' work, on this machine or on a cluster.

Work is handed over as a whole and models that devices share are stored once, so its cost does not depend on the size of
the fleet (Flower's own engine polls every node for every message). Only what workers can soon do leaves the driver, so
memory does not depend on the size of a round either.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import ray
from flwr.app import Message

from slimfleet.client.store import StateFiles
from slimfleet.simulations.grids.flower import NO_REPLY, WORKER_CRASHED, devices_of, error_reply
from slimfleet.simulations.grids.ray_crew import LOST, Crew, Member, Task, Work, result
from slimfleet.simulations.grids.ray_daemons import local_ray
from slimfleet.simulations.grids.ray_shelf import Shelf
from slimfleet.simulations.grids.ray_worker import Done, MakeApp, Parcel
from slimfleet.simulations.settings import RunSettings

__all__ = ["RayEngine"]

log = logging.getLogger(__name__)

_IN_FLIGHT = 2
"""Pieces of work that wait at a worker, the one it is at included, so that it never idles."""
_INLINE_BYTES = 65_536
"""A smaller record travels with each message: Ray's store takes some 2 ms a message, and Ray itself puts nothing below
100 kB there."""
_SHARED = 8
"""Records that lie in Ray's store for work that is to come."""


class RayEngine:
    """Keeps workers busy, on the Ray that this process is connected to, else on one of its own on this machine.

    What devices keep between rounds is in the folder `states` on this machine. Where a worker or its machine dies, its
    work is done again elsewhere, from the same states and so to the same bytes; work over which
    `settings.attempts` workers have died is given up. A device that works longer than `settings.device_timeout_s` of
    real time is given up at once, and its worker replaced.
    """

    def __init__(self, make_app: MakeApp, states: Path, settings: RunSettings) -> None:
        self._settings = settings
        self._files = StateFiles(states, durable=False)
        self._shelf = Shelf(_SHARED)
        self._line: deque[Work] = deque()
        self._crew = Crew(make_app, states, settings.workers)
        self._daemons = ExitStack()
        self._daemons.enter_context(local_ray(settings.workers))
        try:
            while not any(self._crew.working()):
                self._crew.fill()
                self._look(timeout_s=1.0)
        except BaseException:
            self.close()
            raise

    @property
    def workers(self) -> list[Any]:
        """Handles of the actors."""
        return [member.actor for member in self._crew.members]

    def submit(self, messages: Sequence[Message]) -> None:
        """Put messages in line."""
        uses = Counter(id(record) for message in messages for record in message.content.values())
        for message in messages:
            shared = tuple(
                name
                for name, record in message.content.items()
                if uses[id(record)] > 1 and record.count_bytes() > _INLINE_BYTES
            )
            self._line.append(Work(message, shared))
        self._feed()

    def collect(self, timeout_s: float) -> list[Message]:
        """Answers that are ready; errors for devices that took too long, or over which worker after worker died."""
        if not self._line and not any(member.tasks for member in self._crew.members):
            self._shelf.clear()
            return []
        self._crew.fill()
        self._feed()
        return self._look(timeout_s) + self._give_up_hanging()

    def close(self) -> None:
        """End the workers, and Ray where it was started here; leave a cluster as it was."""
        with self._daemons:
            self._line.clear()
            self._shelf.clear()
            self._crew.dismiss_all()

    def _look(self, timeout_s: float) -> list[Message]:
        """Take what is ready, waiting for the first at most so long."""
        awaited: dict[Any, Member] = {}
        for member in self._crew.members:
            if member.starting is not None:
                awaited[member.starting] = member
            awaited |= {task.reference: member for task in member.tasks}
        if not awaited:
            return []
        ray.wait(list(awaited), num_returns=1, timeout=timeout_s)
        ready, _ = ray.wait(list(awaited), num_returns=len(awaited), timeout=0)
        return [reply for reference in ready for reply in self._take(awaited[reference], reference)]

    def _take(self, member: Member, reference: Any) -> list[Message]:
        if member not in self._crew.members:
            return []  # dismissed a moment ago: its work is in line again
        if reference == member.starting:
            self._crew.started(member)
            return []
        task = next(task for task in member.tasks if task.reference == reference)
        try:
            done: Done = result(reference)
        except LOST as death:
            log.warning("a worker died and is replaced: %s", type(death).__name__)
            return self._dismiss(member, self._after_death)
        for name, level, text in done.said:
            logging.getLogger(name).log(level, "%s", text)
        for device, content in done.states.items():
            self._files.write(device, content)
        member.tasks.remove(task)
        if member.tasks:
            member.tasks[0].since_s = time.monotonic()
        self._feed()
        return [done.reply]

    def _give_up_hanging(self) -> list[Message]:
        answers, now = [], time.monotonic()
        for member in list(self._crew.working()):
            if not member.tasks:
                continue
            first = member.tasks[0]
            allowed_s = self._settings.device_timeout_s * len(devices_of(first.work.message))
            if first.since_s + allowed_s < now and not _is_done(first):
                log.warning("a worker hangs for more than %g s and is replaced", allowed_s)
                late = f"no answer within {allowed_s:g} s"
                answers += self._dismiss(member, partial(_given_up, code=NO_REPLY, reason=late))
        return answers

    def _dismiss(self, member: Member, judge: Callable[[Work], Message | None]) -> list[Message]:
        """Replace a worker. `judge` answers for what it was at, or has it done again; the rest goes back in line."""
        first, *others = (task.work for task in member.tasks)
        self._crew.dismiss(member)
        self._line.extendleft(reversed(others))
        if (answer := judge(first)) is None:
            self._line.appendleft(first)
        self._feed()
        return [] if answer is None else [answer]

    def _after_death(self, work: Work) -> Message | None:
        work.deaths += 1
        if work.deaths < self._settings.attempts:
            return None
        return _given_up(work, WORKER_CRASHED, f"{work.deaths} workers died over it")

    def _feed(self) -> None:
        for depth in range(1, _IN_FLIGHT + 1):
            for member in self._crew.working():
                if self._line and len(member.tasks) < depth and _may_join(self._line[0], member):
                    self._send(member, self._line.popleft())

    def _send(self, member: Member, work: Work) -> None:
        content = work.message.content
        own = {name: record for name, record in content.items() if name not in work.shared}
        files = {device: self._files.read(device) for device in devices_of(work.message)}
        states = {device: file for device, file in files.items() if file is not None}
        parcel = Parcel(work.message.metadata, own, work.shared, states)
        records = [self._shelf.reference(content[name]) for name in work.shared]
        reference = member.actor.work.remote(parcel, *records)
        member.tasks.append(Task(reference, work, time.monotonic()))


def _may_join(work: Work, member: Member) -> bool:
    """Whether work may wait at a worker behind other work.

    Work over which a worker seems to have died is done alone: an answer may be lost with a worker that the work behind
    it ended, and would count against the wrong one again.
    """
    return not member.tasks or not (work.deaths or any(task.work.deaths for task in member.tasks))


def _given_up(work: Work, code: int, reason: str) -> Message:
    return error_reply(work.message, code, reason)


def _is_done(task: Task) -> bool:
    return bool(ray.wait([task.reference], timeout=0)[0])
