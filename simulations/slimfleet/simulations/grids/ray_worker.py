"""Ray worker: one process that does many devices' work, and holds nothing that its death could lose."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from flwr.app import Message, Metadata, RecordDict
from flwr.clientapp import ClientApp

from slimfleet.compression import BadInput
from slimfleet.simulations.carried_states import CarriedStates
from slimfleet.simulations.grids.flower import answer, context_of, identify_process, rebuilt
from slimfleet.simulations.grids.versions import differences

__all__ = ["Done", "MakeApp", "Parcel", "RayWorker"]

MakeApp = Callable[[CarriedStates], ClientApp]
"""Makes the app of a worker, whose devices find their states in what it is given."""

_Line = tuple[str, int, str]
"""Of a log: the logger's name, the level and the message."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One message, as it travels to a worker."""

    metadata: Metadata
    own: Mapping[str, Any]
    """Records of this message alone."""
    shared: tuple[str, ...]
    """Names of the records that lie in Ray's store, in the order in which they come."""
    states: dict[int, bytes]
    """Files of the devices that the message gives work to."""


@dataclass(frozen=True, slots=True)
class Done:
    """What comes back."""

    reply: Message
    states: dict[int, bytes]
    """Files that the devices have written."""
    said: list[_Line]
    """Errors that were logged on the way."""


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


@ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)
class RayWorker:
    """One process, many devices, one piece of work at a time."""

    def __init__(self, make_app: MakeApp, home: Path) -> None:
        identify_process()
        self._make_app = make_app
        self._states = CarriedStates(home)
        self._said = _Said()
        logging.getLogger("slimfleet").addHandler(self._said)

    def ready(self, driver: Mapping[str, str]) -> None:
        """Make the app. Comes before any work; what it raises comes back as it is, unlike that of a constructor.

        Raises BadInput where this machine has other versions than the driver, which might compute other bytes.
        """
        if other := differences(driver):
            machine = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
            raise BadInput(f"machine {machine} of the Ray cluster has {other}")
        self._app = self._make_app(self._states)

    def work(self, parcel: Parcel, *records: Any) -> Done:
        """Answer one message, whose shared records are `records`."""
        content = RecordDict({**parcel.own, **dict(zip(parcel.shared, records, strict=True))})
        self._states.put(parcel.states)
        node = parcel.metadata.dst_node_id
        context = context_of(node, {"partition-id": node - 1})
        reply = answer(self._app, rebuilt(parcel.metadata, content), context)
        return Done(reply, self._states.changed(parcel.states), self._said.taken())
