"""Packing: how work travels over a Flower grid, one message a device unless a transport has a better way."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from flwr.app import Message

from slimfleet.coordinator.sending.dispatch import Dispatch
from slimfleet.coordinator.transport.flower.messages import Reply, came_of, train_messages
from slimfleet.coordinator.transport.link import NO_PLAN, Came

__all__ = ["OneByOne", "Packing", "Parcel"]


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message, and the work that it carries."""

    message: Message
    dispatches: Sequence[Dispatch]

    def without(self, plan_ids: Collection[int]) -> Parcel:
        """The parcel, of which answers to these plans are not awaited any more."""
        return replace(self, dispatches=[each for each in self.dispatches if each.plan_id not in plan_ids])


class Packing(Protocol):
    """Puts work into messages, and takes answers out of replies."""

    def parcels(self, dispatches: Sequence[Dispatch]) -> list[Parcel]:
        """The work of several devices as messages."""
        ...

    def opened(self, parcel: Parcel, reply: Message) -> list[Came]:
        """The answers to the parcel's work in the reply to it."""
        ...


@dataclass(frozen=True, slots=True)
class OneByOne:
    """A message for each device, as a deployment needs it."""

    valid_s: float | None = None
    """Wall-clock time in which a node must have fetched its work: a node that hung does not do it once it wakes."""

    def parcels(self, dispatches: Sequence[Dispatch]) -> list[Parcel]:
        """One for each."""
        each = tuple(dispatches)
        return [Parcel(m, (d,)) for m, d in zip(train_messages(each, self.valid_s), each, strict=True)]

    def opened(self, parcel: Parcel, reply: Message) -> list[Came]:
        """One answer."""
        (dispatch,) = parcel.dispatches
        # The link answers, under a number of its own, for nodes that are gone.
        fits = reply.has_error() or reply.metadata.src_node_id == dispatch.node
        return [came_of(dispatch, dispatch.plan_id if fits else NO_PLAN, Reply.of(reply))]
