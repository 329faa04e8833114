"""Registration in the background: nodes are asked once, and taken in when they answer, however late."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from math import inf

from flwr.serverapp import Grid

from slimfleet.compression import PayloadError
from slimfleet.coordinator.registry import Registry
from slimfleet.coordinator.transport.flower.messages import registration_in, registration_request

REASK_S = 300.0
"""A node that has not registered is asked again after this time."""

PATIENCE_S = 60.0
"""A round waits no longer than this for answers, and only where it is short of devices; a board of the smallest kind
takes some twenty seconds to start Python and torch."""

log = logging.getLogger(__name__)


class Registrar:
    """Takes the nodes of a grid into a registry. No call waits for an answer."""

    def __init__(self, registry: Registry, grid: Grid, now_s: Callable[[], float]) -> None:
        self._registry, self._grid, self._now_s = registry, grid, now_s
        self._asked: dict[int, float] = {}
        """Node -> when it was last asked."""
        self._asked_s: dict[int, float] = {}
        """The same by the environment's time."""
        self._first_asked: dict[int, float] = {}
        self._pending: dict[str, int] = {}
        """Message id -> the node whose answer is awaited."""
        self.problems: dict[int, str] = {}
        """Node -> why its last answer could not be used."""

    def ask(self, nodes: Sequence[int]) -> None:
        """Ask those of `nodes` that are new, or have been silent or wrong for a while, to introduce themselves."""
        now = time.monotonic()
        due = [n for n in self._registry.missing(nodes) if now - self._asked.get(n, -inf) >= REASK_S]
        if not due:
            return
        again = set(due)
        self._pending = {id_: node for id_, node in self._pending.items() if node not in again}
        ids = self._grid.push_messages([registration_request(node) for node in due])
        self._pending |= dict(zip(ids, due, strict=True))
        self._asked |= dict.fromkeys(due, now)
        self._asked_s |= dict.fromkeys(due, self._now_s())
        self._first_asked = dict.fromkeys(due, now) | self._first_asked

    def listen(self) -> None:
        """Take in what has come."""
        if not self._pending:
            return
        for reply in self._grid.pull_messages(list(self._pending)):
            # An error that the link itself reports comes from no node: the message that it answers says whose it is.
            node = self._pending.pop(reply.metadata.reply_to_message_id, None)
            if node is None:
                continue
            try:
                said = registration_in(reply)
            except PayloadError as error:
                self.problems[node] = str(error)
                log.warning("a device (node %d) could not register: %s", node, error)
            else:
                self.problems.pop(node, None)
                self._registry.register(node, said.profile, said.examples, said.startup)
                self._registry[node].hear(said.condition, self._now_s())
                round_trip_s = self._now_s() - self._asked_s[node]
                self._registry[node].overhead_s = max(round_trip_s - said.startup.time_s, 0.0)
                log.info("%s has registered, with %d examples", self._registry.label(node), said.examples)

    def awaits(self, nodes: Sequence[int], patience_s: float = PATIENCE_S) -> bool:
        """Whether a first answer of one of `nodes` may still come, first asked for less than `patience_s` ago.

        One that was silent for so long is asked again now and then, and holds up nobody.
        """
        if not self._pending:
            return False
        late = time.monotonic() - patience_s
        waiting = set(self._pending.values()) & set(nodes)
        return any(self._first_asked[node] > late for node in waiting)
