"""Ray engine: a few actors, each doing many devices' work.

A round is handed over as a whole and models that devices share are stored once, so its cost does not depend on the
size of the fleet (Flower's own engine polls every node for every message).
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
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

__all__ = ["RayEngine"]

log = logging.getLogger(__name__)

_IN_FLIGHT = 2
"""Devices that wait at an actor, the one it works on included, so that it never idles."""

_Shared = dict[str, Any]
_Parcel = tuple[Any, _Shared, dict[str, int]]
"""Metadata of a message, its own records, and which stored records it shares with others."""


@ray.remote(num_cpus=1)
class _Worker:
    """One process, many devices, one at a time."""

    def __init__(self, make_app: Callable[[], ClientApp]) -> None:
        identify_process()
        self._app = make_app()
        self._contexts: dict[int, Context] = {}

    def ready(self) -> None:
        """Answers once the app has been made."""

    def work(self, shared: Sequence[Any], parcel: _Parcel) -> Message:
        """Answer one message."""
        metadata, own, keys = parcel
        content = RecordDict({**own, **{name: shared[place] for name, place in keys.items()}})
        node = metadata.dst_node_id
        context = self._contexts.setdefault(node, context_of(node, {"partition-id": node - 1}))
        return answer(self._app, rebuilt(metadata, content), context)


@dataclass(slots=True)
class _Task:
    """One device's work at an actor."""

    reference: Any
    message: Message
    since_s: float
    """When the actor could begin: a device is given its time from here."""


class RayEngine:
    """Keeps `workers` actors busy. Starts Ray on this machine alone, unless it already runs in this process.

    A device that works longer than `device_timeout_s` of real time is given up and its actor replaced; when an actor
    dies, the device it worked on is lost. Devices that waited behind either are handed to an actor again.
    """

    def __init__(self, make_app: Callable[[], ClientApp], workers: int, device_timeout_s: float) -> None:
        self._owns_ray = not ray.is_initialized()
        if self._owns_ray:
            ray.init(address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False)
        self._make_app = make_app
        self._timeout_s = device_timeout_s
        self._workers = [self._start() for _ in range(workers)]
        ray.get([worker.ready.remote() for worker in self._workers])
        self._queues: list[deque[_Task]] = [deque() for _ in range(workers)]
        self._line: deque[Message] = deque()
        self._shared: Any = None
        self._places: dict[int, int] = {}

    @property
    def workers(self) -> list[Any]:
        """Handles of the actors."""
        return list(self._workers)

    def submit(self, messages: Sequence[Message]) -> None:
        """Hand over a round. An actor still at work on an earlier one is replaced."""
        for worker, queue in enumerate(self._queues):
            if queue:
                queue.clear()
                self._replace(worker)
        self._store_shared(messages)
        self._line = deque(messages)
        for _ in range(_IN_FLIGHT):
            for worker in range(len(self._workers)):
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
        for worker in self._workers:
            ray.kill(worker, no_restart=True)
        if self._owns_ray:
            ray.shutdown()

    def _take(self, worker: int, reference: Any) -> list[Message]:
        queue = self._queues[worker]
        task = next(task for task in queue if task.reference == reference)
        try:
            reply = ray.get(reference)
        except RayTaskError as failure:  # `answer` lets nothing through but what must end the run
            raise failure.cause from None
        except RayActorError as death:
            log.warning("worker %d died and is replaced: %s", worker, type(death).__name__)
            self._replace(worker)
            return [self._lose(worker, WORKER_CRASHED, "the worker died")]
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
        self._line.extendleft(task.message for task in reversed(others))
        for _ in range(_IN_FLIGHT):
            self._feed(worker)
        return error_reply(lost.message, code, reason)

    def _replace(self, worker: int) -> None:
        ray.kill(self._workers[worker], no_restart=True)
        self._workers[worker] = self._start()
        ray.get(self._workers[worker].ready.remote())  # a device's time begins when its actor can work

    def _start(self) -> Any:
        return _Worker.remote(self._make_app)  # type: ignore[attr-defined]

    def _feed(self, worker: int) -> None:
        if self._line:
            message = self._line.popleft()
            reference = self._workers[worker].work.remote(self._shared, self._parcel(message))
            self._queues[worker].append(_Task(reference, message, time.monotonic()))

    def _store_shared(self, messages: Sequence[Message]) -> None:
        """Put records that several messages hold into Ray's store once."""
        records = {id(record): record for message in messages for record in message.content.values()}
        uses = Counter(id(record) for message in messages for record in message.content.values())
        common = [key for key, count in uses.items() if count > 1]
        self._places = {key: place for place, key in enumerate(common)}
        self._shared = ray.put([records[key] for key in common])

    def _parcel(self, message: Message) -> _Parcel:
        own = {k: r for k, r in message.content.items() if id(r) not in self._places}
        keys = {k: self._places[id(r)] for k, r in message.content.items() if id(r) in self._places}
        return message.metadata, own, keys


def _is_done(task: _Task) -> bool:
    return bool(ray.wait([task.reference], timeout=0)[0])
