"""Links: how a coordinator reaches its devices, whatever carries the messages.

A link is polled by the thread that drives the coordinator. `Union` makes one of several, so that one round has devices
behind a SuperLink and devices at a gateway.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from slimfleet.compression import Condition
from slimfleet.compression.messages import Registration
from slimfleet.coordinator.entries import Failed, Received
from slimfleet.coordinator.receiving.lot import Lot
from slimfleet.coordinator.sending.dispatch import Dispatch

__all__ = ["Came", "Link", "Said", "Union"]


@dataclass(frozen=True, slots=True)
class Said:
    """What a node has said of itself."""

    node: int
    what: Registration | Condition | str
    """Its introduction, the condition that it is in, or why its introduction could not be used."""


@dataclass(frozen=True, slots=True)
class Came:
    """An answer that has come."""

    dispatch: Dispatch
    """Of the device, or of the first of several."""
    plan_id: int
    """The plan that is answered, or `NO_PLAN`."""
    took_s: float | None
    """How long the device says that it worked; None where it says nothing that can be understood."""
    answer: Received | Failed | Lot


NO_PLAN = -1
"""Plan that a reply answers which does not come from the node that was given the work: it counts as a replay."""


class Link(Protocol):
    """A way to devices. No call waits for a device."""

    def nodes(self) -> Sequence[int]:
        """The devices that are connected now. A simulated link gives a range, which takes no memory for its nodes."""
        ...

    def ask(self, nodes: Mapping[int, float | None]) -> None:
        """Have devices introduce themselves: node -> for how many seconds the question is valid, None for long."""
        ...

    def said(self) -> Sequence[Said]:
        """What devices have said of themselves since the last call."""
        ...

    def send(self, dispatches: Sequence[Dispatch]) -> None:
        """Give devices their work."""
        ...

    def came(self) -> Sequence[Came]:
        """Answers that have come since the last call."""
        ...

    def is_waiting(self) -> bool:
        """Whether answers are still under way."""
        ...

    def forget(self, plan_ids: Collection[int]) -> None:
        """Do not hand out answers to these plans any more."""
        ...


class Union:
    """Several links as one. A node belongs to the link that showed it first."""

    def __init__(self, links: Sequence[Link]) -> None:
        self._links = links
        self._home: dict[int, Link] = {}
        self._unsent: list[Dispatch] = []
        """Work for nodes that no link has shown yet."""

    def nodes(self) -> Sequence[int]:
        """Those of all links."""
        found: list[int] = []
        for link in self._links:
            for node in link.nodes():
                if self._home.setdefault(node, link) is link:
                    found.append(node)
        return found

    def ask(self, nodes: Mapping[int, float | None]) -> None:
        """Each is asked over its own link."""
        for link in self._links:
            some = {node: valid_s for node, valid_s in nodes.items() if self._home.get(node) is link}
            if some:
                link.ask(some)

    def said(self) -> Sequence[Said]:
        """Whatever came over the link that a node belongs to."""
        return [
            each
            for link in self._links
            for each in link.said()
            if self._home.setdefault(each.node, link) is link
        ]

    def send(self, dispatches: Sequence[Dispatch]) -> None:
        """Work goes over the link that its node belongs to; after a restart, once one shows that node."""
        self._unsent += dispatches
        self._deliver()

    def came(self) -> Sequence[Came]:
        """Those of all links."""
        if self._unsent:
            self._deliver()
        return [each for link in self._links for each in link.came()]

    def is_waiting(self) -> bool:
        """Whether one of them is."""
        return bool(self._unsent) or any(link.is_waiting() for link in self._links)

    def forget(self, plan_ids: Collection[int]) -> None:
        """None of them hands out answers to these plans any more."""
        self._unsent = [each for each in self._unsent if each.plan_id not in plan_ids]
        for link in self._links:
            link.forget(plan_ids)

    def _deliver(self) -> None:
        self.nodes()
        for link in self._links:
            some = [each for each in self._unsent if self._home.get(each.node) is link]
            if some:
                link.send(some)
        self._unsent = [each for each in self._unsent if each.node not in self._home]
