"""Run over a Flower grid: our simulation's, Flower's own, or a real SuperLink's."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from slimfleet.compression import PayloadError
from slimfleet.coordinator.coordinator import Coordinator
from slimfleet.coordinator.observing.events import Observer
from slimfleet.coordinator.sending.dispatch import Dispatch
from slimfleet.coordinator.transport.driving import drive
from slimfleet.coordinator.transport.flower.messages import registration_in, registration_request
from slimfleet.coordinator.transport.flower.packing import OneByOne, Packing, Parcel
from slimfleet.coordinator.transport.flower.patient import MessageGrid
from slimfleet.coordinator.transport.link import Came, Said


def run(
    coordinator: Coordinator,
    grid: MessageGrid,
    folder: Path | None,
    observers: Sequence[Observer] = (),
    *,
    everyone: bool = False,
    packing: Packing | None = None,
) -> None:
    """Run the rounds that are left over a grid, as `drive` does. `packing` says how work travels, by default in a
    message for each device."""
    packing = packing or OneByOne(None if everyone else coordinator.settings.round_timeout_s)
    drive(coordinator, FlowerLink(grid, packing), folder, observers, everyone=everyone)


class FlowerLink:
    """A Flower grid as a link: messages out, replies in."""

    def __init__(self, grid: MessageGrid, packing: Packing | None = None) -> None:
        self._grid, self._packing = grid, packing or OneByOne()
        self._asked: dict[str, int] = {}
        """Message id -> the node whose introduction is awaited."""
        self._waiting: dict[str, Parcel] = {}
        """Message id -> the work that the grid has brought no reply to."""

    def nodes(self) -> Sequence[int]:
        """The nodes that the grid has now."""
        nodes = self._grid.get_node_ids()
        return nodes if isinstance(nodes, range) else list(nodes)

    def ask(self, nodes: Mapping[int, float | None]) -> None:
        """Put the question to each node; an earlier one is not listened for any more."""
        self._asked = {id_: node for id_, node in self._asked.items() if node not in nodes}
        requests = [registration_request(node, valid_s) for node, valid_s in nodes.items()]
        self._asked |= dict(zip(self._grid.push_messages(requests), nodes, strict=True))

    def said(self) -> Sequence[Said]:
        """The introductions that have come."""
        said: list[Said] = []
        if not self._asked:
            return said
        for reply in self._grid.pull_messages(list(self._asked)):
            # An error that the link itself reports comes from no node: the message that it answers says whose it is.
            node = self._asked.pop(reply.metadata.reply_to_message_id, None)
            if node is None:
                continue
            try:
                said.append(Said(node, registration_in(reply)))
            except PayloadError as error:
                said.append(Said(node, str(error)))
        return said

    def send(self, dispatches: Sequence[Dispatch]) -> None:
        """Push the work."""
        parcels = self._packing.parcels(dispatches)
        ids = self._grid.push_messages([parcel.message for parcel in parcels])
        self._waiting |= dict(zip(ids, parcels, strict=True))

    def came(self) -> Sequence[Came]:
        """The answers in the replies that have come."""
        came: list[Came] = []
        if not self._waiting:
            return came
        for message in self._grid.pull_messages(list(self._waiting)):
            parcel = self._waiting.pop(message.metadata.reply_to_message_id, None)
            if parcel is not None:
                came += self._packing.opened(parcel, message)
        return came

    def is_waiting(self) -> bool:
        """Whether a reply is still awaited."""
        return bool(self._waiting)

    def forget(self, plan_ids: Collection[int]) -> None:
        """Leave these plans out of their parcels; a parcel of none of them is not waited for."""
        left = {id_: parcel.without(plan_ids) for id_, parcel in self._waiting.items()}
        self._waiting = {id_: parcel for id_, parcel in left.items() if parcel.dispatches}
