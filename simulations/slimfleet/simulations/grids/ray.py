"""Devices on Ray: a few actors, each doing many devices' work, handed to them in small batches.

A round is handed over as a whole and models shared by devices are stored once, so its cost does not depend on the
size of the fleet (Flower's own engine polls every node for every message). An actor that dies takes the batch it was
working on with it: those devices are answered for with an error, and Ray starts the actor again.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import ray
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from ray.exceptions import RayActorError

from slimfleet.simulations.grids.flower import answer, context_of, error_reply, identify_process, rebuilt

log = logging.getLogger(__name__)

BATCH = 2
"""Devices an actor is handed at a time: two batches wait at each actor, so it never idles."""

Shared = dict[str, Any]
Parcel = tuple[Any, Shared, dict[str, int]]
"""Metadata of a message, its own records, and which stored records it shares with others."""


@ray.remote(num_cpus=1, max_restarts=-1)
class Worker:
    """One process, many devices, one at a time."""

    def __init__(self, make_app: Callable[[], ClientApp]) -> None:
        identify_process()
        self._app = make_app()
        self._contexts: dict[int, Context] = {}

    def work(self, shared: Sequence[Any], batch: Sequence[Parcel]) -> list[Message]:
        """Answer a batch of messages."""
        return [self._answer(shared, parcel) for parcel in batch]

    def _answer(self, shared: Sequence[Any], parcel: Parcel) -> Message:
        metadata, own, keys = parcel
        content = RecordDict({**own, **{name: shared[place] for name, place in keys.items()}})
        node = metadata.dst_node_id
        context = self._contexts.setdefault(node, context_of(node, {"partition-id": node - 1}))
        return answer(self._app, rebuilt(metadata, content), context)


class RayEngine:
    """Keeps `workers` actors busy. Starts Ray on this machine alone, unless it is already running here."""

    def __init__(self, make_app: Callable[[], ClientApp], workers: int) -> None:
        self._owns_ray = not ray.is_initialized()
        if self._owns_ray:
            ray.init(address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False)
        self._make_app = make_app
        self._workers = [self._start() for _ in range(workers)]
        self._line: deque[list[Message]] = deque()
        self._shared: Any = None
        self._places: dict[int, int] = {}
        self._running: dict[Any, tuple[int, list[Message]]] = {}

    @property
    def workers(self) -> list[Any]:
        """Handles of the actors."""
        return list(self._workers)

    def submit(self, messages: Sequence[Message]) -> None:
        """Hand over a round. Actors still busy with an earlier one are hanging: they are replaced."""
        for worker, _ in list(self._running.values()):
            log.warning("worker %d did not finish the last round in time and is replaced", worker)
            ray.kill(self._workers[worker], no_restart=True)
            self._workers[worker] = self._start()
        self._running.clear()
        self._store_shared(messages)
        self._line = deque(list(messages[i : i + BATCH]) for i in range(0, len(messages), BATCH))
        for worker in [*range(len(self._workers))] * 2:
            self._feed(worker)

    def collect(self, timeout_s: float) -> list[Message]:
        """Answers of the batches that are done; errors for those that died with their actor."""
        if not self._running:
            return []
        ready, _ = ray.wait(list(self._running), num_returns=1, timeout=timeout_s)
        answers: list[Message] = []
        for reference in ready:
            worker, batch = self._running.pop(reference)
            try:
                answers += ray.get(reference)
            except RayActorError as death:
                reason = f"the worker died: {type(death).__name__}"
                answers += [error_reply(m, ErrorCode.CLIENT_APP_CRASHED, reason) for m in batch]
            self._feed(worker)
        return answers

    def close(self) -> None:
        """End the actors, and Ray where it was started here."""
        for worker in self._workers:
            ray.kill(worker, no_restart=True)
        if self._owns_ray:
            ray.shutdown()

    def _start(self) -> Any:
        return Worker.remote(self._make_app)  # type: ignore[attr-defined]

    def _feed(self, worker: int) -> None:
        if self._line:
            batch = self._line.popleft()
            parcels = [self._parcel(message) for message in batch]
            self._running[self._workers[worker].work.remote(self._shared, parcels)] = worker, batch

    def _store_shared(self, messages: Sequence[Message]) -> None:
        """Put records that several messages hold into Ray's store once."""
        uses: dict[int, int] = {}
        records: dict[int, Any] = {}
        for message in messages:
            for record in message.content.values():
                uses[id(record)] = uses.get(id(record), 0) + 1
                records[id(record)] = record
        common = [key for key, count in uses.items() if count > 1]
        self._places = {key: place for place, key in enumerate(common)}
        self._shared = ray.put([records[key] for key in common])

    def _parcel(self, message: Message) -> Parcel:
        own = {k: r for k, r in message.content.items() if id(r) not in self._places}
        keys = {k: self._places[id(r)] for k, r in message.content.items() if id(r) in self._places}
        return message.metadata, own, keys
