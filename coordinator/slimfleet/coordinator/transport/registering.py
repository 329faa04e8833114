"""Registration in the background: nodes are asked to introduce themselves, and taken in when they answer.

A node that is silent or wrong is asked again, each time after twice as long. A question is valid until the next is put,
so that a node that wakes up answers one, however often it was asked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from slimfleet.compression import Condition
from slimfleet.compression.messages import Registration
from slimfleet.coordinator.entries import Registered
from slimfleet.coordinator.registry import Registry
from slimfleet.coordinator.transport.link import Link

REASK_S = 300.0
"""A node that has not registered is asked again after this time, and then after twice as long as before."""

RAREST_S = 3_600.0
"""A node that has not registered is asked at least this often."""

PATIENCE_S = 60.0
"""A round waits no longer than this for answers, and only where it is short of devices; a board of the smallest kind
takes some twenty seconds to start Python and torch."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Asked:
    """When a node that has not registered was asked, by the environment's time, and how long that question is valid."""

    first_s: float
    last_s: float
    valid_s: float

    def again(self, now_s: float) -> _Asked:
        return _Asked(self.first_s, now_s, min(2 * self.valid_s, RAREST_S))


class Registrar:
    """Takes the nodes of a link into a registry. No call waits for an answer."""

    def __init__(
        self,
        registry: Registry,
        link: Link,
        now_s: Callable[[], float],
        take: Callable[[Registered], object],
        *,
        expires: bool = True,
    ) -> None:
        """`now_s` is the environment's time; `take` adds a device to the registry. With `expires`, which needs
        wall-clock time, the link drops a question that is no longer valid."""
        self._registry, self._link, self._now_s, self._expires = registry, link, now_s, expires
        self._take = take
        self._asked: dict[int, _Asked] = {}
        """By node: those that are connected and have not registered."""
        self._pending: set[int] = set()
        """Nodes whose answer is awaited."""
        self.problems: dict[int, str] = {}
        """Node -> why its last answer could not be used."""

    def ask(self, nodes: Sequence[int]) -> None:
        """Ask those of `nodes`, all that are connected, that are new, or have been silent or wrong for a while, to
        introduce themselves. One that was disconnected is new."""
        now_s, missing = self._now_s(), self._registry.missing(nodes)
        asked = {node: self._asked[node] for node in missing if node in self._asked}
        due = [n for n in missing if n not in asked or now_s - asked[n].last_s >= asked[n].valid_s]
        self._asked = asked
        if not due:
            return
        for node in due:
            self._asked[node] = asked[node].again(now_s) if node in asked else _Asked(now_s, now_s, REASK_S)
        self._link.ask({node: self._asked[node].valid_s if self._expires else None for node in due})
        self._pending |= set(due)

    def listen(self) -> bool:
        """Take in what has come; whether there was anything."""
        said = self._link.said()
        for each in said:
            match each.what:
                case Condition():
                    self._hear(each.node, each.what)
                case Registration():
                    self._introduce(each.node, each.what)
                case problem:
                    self._pending.discard(each.node)
                    self.problems[each.node] = problem
                    log.warning("a device (node %d) could not register: %s", each.node, problem)
        return bool(said)

    def _hear(self, node: int, condition: Condition) -> None:
        """A condition lasts no longer than the next: it is not kept in the journal."""
        if node in self._registry:
            self._registry[node].hear(condition, self._now_s())

    def _introduce(self, node: int, said: Registration) -> None:
        self._pending.discard(node)
        self.problems.pop(node, None)
        asked, overhead_s = self._asked.pop(node, None), None
        if asked is not None:
            overhead_s = max(self._now_s() - asked.last_s - said.startup.time_s, 0.0)
        self._take(Registered(node=node, said=said, overhead_s=overhead_s))
        log.info("%s has registered, with %d examples", self._registry.label(node), said.examples)

    def awaits(self, nodes: Sequence[int], patience_s: float = PATIENCE_S) -> bool:
        """Whether a first answer of one of `nodes` may still come, first asked for less than `patience_s` ago.

        One that was silent for so long is asked again now and then, and holds up nobody.
        """
        if not self._pending:
            return False
        late = self._now_s() - patience_s
        waiting = self._pending & set(nodes) & self._asked.keys()
        return any(self._asked[node].first_s > late for node in waiting)
