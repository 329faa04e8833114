"""Ray engine: a few actors, each doing many devices' work.

Work is handed over as a whole and models that devices share are stored once, so its cost does not depend on the size of
the fleet (Flower's own engine polls every node for every message).
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import ray
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from ray.exceptions import RayActorError, RayTaskError

from slimfleet.simulations.grids.flower import (
    NO_REPLY,
    WORKER_CRASHED,
    answer,
    context_of,
    error_reply,
    identify_process,
    rebuilt,
)
from slimfleet.simulations.grids.ray_daemons import local_ray

__all__ = ["RayEngine"]

log = logging.getLogger(__name__)

_IN_FLIGHT = 2
"""Devices that wait at an actor, the one it works on included, so that it never idles."""

_Shared = dict[str, Any]
_Parcel = tuple[Any, _Shared, dict[str, int]]
"""Metadata of a message, its own records, and which stored records it shares with others."""

_Line = tuple[str, int, str]
"""Of a log: the logger's name, the level and the message."""


class _Said(logging.Handler):
    """Keeps errors that are logged in a worker, whose own output nobody sees."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._lines: list[_Line] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append((record.name, record.levelno, record.getMessage()))

    def taken(self) -> list[_Line]:
        """The lines since the last look."""
        lines, self._lines = self._lines, []
        return lines


@ray.remote(num_cpus=1)
class _Worker:
    """One process, many devices, one at a time."""

    def __init__(self, make_app: Callable[[], ClientApp]) -> None:
        identify_process()
        self._make_app = make_app
        self._contexts: dict[int, Context] = {}
        self._said = _Said()
        logging.getLogger("slimfleet").addHandler(self._said)

    def ready(self) -> None:
        """Make the app. Comes before any work; what it raises comes back as it is, unlike that of a constructor."""
        self._app = self._make_app()

    def work(self, shared: Sequence[Any], parcel: _Parcel) -> tuple[Message, list[_Line]]:
        """Answer one message; with the errors that were logged on the way."""
        metadata, own, keys = parcel
        content = RecordDict({**own, **{name: shared[place] for name, place in keys.items()}})
        node = metadata.dst_node_id
        context = self._contexts.setdefault(node, context_of(node, {"partition-id": node - 1}))
        reply = answer(self._app, rebuilt(metadata, content), context)
        return reply, self._said.taken()


@dataclass(frozen=True, slots=True)
class _Waiting:
    """One device's work, as actors take it."""

    message: Message
    parcel: _Parcel
    shared: Any
    """Reference to the records in Ray's store."""


@dataclass(slots=True)
class _Task:
    """One device's work at an actor."""

    reference: Any
    work: _Waiting
    since_s: float
    """When the actor could begin: a device is given its time from here."""


class RayEngine:
    """Keeps `workers` actors busy. Starts Ray on this machine alone, unless it already runs in this process.

    A device that works longer than `device_timeout_s` of real time is given up and its actor replaced; when an actor
    dies, the device it worked on is lost. Devices that waited behind either are handed to an actor again.
    """

    def __init__(self, make_app: Callable[[], ClientApp], workers: int, device_timeout_s: float) -> None:
        self._make_app = make_app
        self._timeout_s = device_timeout_s
        self._workers: list[Any] = []
        self._daemons = ExitStack()
        if not ray.is_initialized():
            self._daemons.enter_context(local_ray(workers))
        try:
            self._workers += [self._start() for _ in range(workers)]
            _result([worker.ready.remote() for worker in self._workers])
        except BaseException:
            self.close()
            raise
        self._queues: list[deque[_Task]] = [deque() for _ in range(workers)]
        self._line: deque[_Waiting] = deque()

    @property
    def workers(self) -> list[Any]:
        """Handles of the actors."""
        return list(self._workers)

    def submit(self, messages: Sequence[Message]) -> None:
        """Put messages in line; records that several of them hold go into Ray's store once."""
        self._line.extend(_waiting(messages))
        for _ in range(_IN_FLIGHT):
            for worker, queue in enumerate(self._queues):
                if len(queue) < _IN_FLIGHT:
                    self._feed(worker)

    def collect(self, timeout_s: float) -> list[Message]:
        """Answers that are ready; errors for devices that were lost with their actor or took too long."""
        running = {task.reference: worker for worker, queue in enumerate(self._queues) for task in queue}
        if not running:
            return []
        ready, _ = ray.wait(list(running), num_returns=1, timeout=timeout_s)
        answers = [reply for reference in ready for reply in self._take(running[reference], reference)]
        return answers + self._give_up_hanging()

    def close(self) -> None:
        """End the actors, and Ray where it was started here."""
        with self._daemons:
            for worker in self._workers:
                ray.kill(worker, no_restart=True)

    def _take(self, worker: int, reference: Any) -> list[Message]:
        queue = self._queues[worker]
        task = next(task for task in queue if task.reference == reference)
        try:
            reply, said = _result(reference)
        except RayActorError as death:
            log.warning("worker %d died and is replaced: %s", worker, type(death).__name__)
            self._replace(worker)
            return [self._lose(worker, WORKER_CRASHED, "the worker died")]
        for name, level, text in said:
            logging.getLogger(name).log(level, "%s", text)
        queue.remove(task)
        if queue:
            queue[0].since_s = time.monotonic()
        self._feed(worker)
        return [reply]

    def _give_up_hanging(self) -> list[Message]:
        late = time.monotonic() - self._timeout_s
        answers = []
        for worker, queue in enumerate(self._queues):
            if queue and queue[0].since_s < late and not _is_done(queue[0]):
                log.warning("worker %d hangs for more than %g s and is replaced", worker, self._timeout_s)
                self._replace(worker)
                reason = f"no answer within {self._timeout_s:g} s"
                answers.append(self._lose(worker, NO_REPLY, reason))
        return answers

    def _lose(self, worker: int, code: int, reason: str) -> Message:
        """Answer for the device that an actor worked on; the devices behind it go back to the head of the line."""
        lost, *others = self._queues[worker]
        self._queues[worker].clear()
        self._line.extendleft(task.work for task in reversed(others))
        for _ in range(_IN_FLIGHT):
            self._feed(worker)
        return error_reply(lost.work.message, code, reason)

    def _replace(self, worker: int) -> None:
        ray.kill(self._workers[worker], no_restart=True)
        self._workers[worker] = self._start()
        _result(self._workers[worker].ready.remote())  # a device's time begins when its actor can work

    def _start(self) -> Any:
        return _Worker.remote(self._make_app)  # type: ignore[attr-defined]

    def _feed(self, worker: int) -> None:
        if self._line:
            waiting = self._line.popleft()
            reference = self._workers[worker].work.remote(waiting.shared, waiting.parcel)
            self._queues[worker].append(_Task(reference, waiting, time.monotonic()))


def _waiting(messages: Sequence[Message]) -> list[_Waiting]:
    """Messages in line; records that several of them hold are put into Ray's store, once."""
    records = {id(record): record for message in messages for record in message.content.values()}
    uses = Counter(id(record) for message in messages for record in message.content.values())
    common = [key for key, uses_of_it in uses.items() if uses_of_it > 1]
    places = {key: place for place, key in enumerate(common)}
    shared = ray.put([records[key] for key in common])

    def parcel(message: Message) -> _Parcel:
        own = {k: r for k, r in message.content.items() if id(r) not in places}
        keys = {k: places[id(r)] for k, r in message.content.items() if id(r) in places}
        return message.metadata, own, keys

    return [_Waiting(message, parcel(message), shared) for message in messages]


def _result(references: Any) -> Any:
    """What actors return. What they raise must end the run, as it would in this process."""
    try:
        return ray.get(references)
    except RayTaskError as failure:
        raise failure.cause from None


def _is_done(task: _Task) -> bool:
    return bool(ray.wait([task.reference], timeout=0)[0])
