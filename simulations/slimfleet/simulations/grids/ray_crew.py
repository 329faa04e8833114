"""Crew: the workers of a Ray engine, as many as there should be, also where they die and where machines come and go."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from flwr.app import Message
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from slimfleet.compression import SlimfleetError
from slimfleet.simulations.grids.ray_worker import MakeApp, RayWorker
from slimfleet.simulations.grids.versions import versions

__all__ = ["LOST", "Crew", "Member", "Task", "Work", "result"]

log = logging.getLogger(__name__)

LOST = (RayActorError, ObjectLostError, WorkerCrashedError, NodeDiedError, OutOfMemoryError)
"""What Ray raises where a worker, its machine or its answer is gone."""

_LOOK_S = 2.0
"""How often the size of the cluster is looked at."""
_PAUSE_S = 30.0
"""How long no worker is started after one could not be, while others work."""
_STARTS = 5
"""Workers in a row that may die before they can work, where no other works."""
_NOBODY_S = 600.0
"""Longest time without any worker: an autoscaler may need minutes to find a machine."""


@dataclass(slots=True)
class Work:
    """One message's work, in line or at a worker."""

    message: Message
    shared: tuple[str, ...]
    """Names of its records that other messages hold too."""
    deaths: int = 0
    """Workers that have died over it."""


@dataclass(slots=True)
class Task:
    """Work at a worker."""

    reference: Any
    work: Work
    since_s: float
    """When the worker could begin: a device is given its time from here."""


@dataclass(slots=True, eq=False)
class Member:
    """One worker."""

    actor: Any
    starting: Any | None
    """Reference to the end of its start; None once it works."""
    tasks: deque[Task] = field(default_factory=deque)
    """What it was given, in the order in which it does it."""


class Crew:
    """`workers` of them; 0 has one per processor core that Ray knows of."""

    def __init__(self, make_app: MakeApp, home: Path, workers: int) -> None:
        self._make_app, self._home, self._workers = make_app, home, workers
        self.members: list[Member] = []
        self._deaths = 0
        self._look_s = 0.0
        self._seen_s = time.monotonic()

    def working(self) -> Iterator[Member]:
        """Those that have started."""
        return (member for member in self.members if member.starting is None)

    def fill(self) -> None:
        """Start the workers that are missing. Raises SlimfleetError where there has been none for too long."""
        now = time.monotonic()
        if any(self.working()):
            self._seen_s = now
        elif now - self._seen_s > _NOBODY_S:
            raise SlimfleetError(
                f"Ray found no machine with a free processor core for a worker within {_NOBODY_S:g} s: "
                f"free some, or add machines"
            )
        if now >= self._look_s:
            self._look_s = now + _LOOK_S
            wanted = self._workers or _processor_cores()
            self.members += [self._start() for _ in range(wanted - len(self.members))]

    def started(self, member: Member) -> None:
        """Take what a start came to; the worker works, or is gone.

        Raises what the worker raised, and SlimfleetError where one after the other dies, unless others work.
        """
        try:
            result(member.starting)
        except Exception as error:
            self.dismiss(member)
            self._deaths += 1
            if not any(self.working()) and (not isinstance(error, LOST) or self._deaths >= _STARTS):
                if isinstance(error, LOST):
                    said = " ".join(str(error).split())
                    raise SlimfleetError(
                        f"{self._deaths} workers died before they could work: {said}"
                    ) from error
                raise
            if any(self.working()):
                log.warning("a worker could not start, the others go on: %s", " ".join(str(error).split()))
                self._look_s = time.monotonic() + _PAUSE_S
        else:
            member.starting = None
            self._deaths = 0

    def dismiss(self, member: Member) -> None:
        """End a worker; `fill` starts another."""
        ray.kill(member.actor, no_restart=True)
        self.members.remove(member)
        self._look_s = 0.0

    def dismiss_all(self) -> None:
        """End every worker."""
        for member in list(self.members):
            self.dismiss(member)

    def _start(self) -> Member:
        actor = RayWorker.remote(self._make_app, self._home)  # type: ignore[attr-defined]
        return Member(actor, actor.ready.remote(versions()))


def _processor_cores() -> int:
    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(resources.get("CPU", 0))


def result(reference: Any) -> Any:
    """What a worker returned. What it raised must end the run, as it would in this process."""
    try:
        return ray.get(reference)
    except RayTaskError as failure:
        raise failure.cause from None
