"""Post: dispatches out over a Flower grid, and the replies back in order of arrival by the environment's time."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Collection, Iterable
from itertools import count

from slimfleet.coordinator.environment import Environment
from slimfleet.coordinator.receiving.lot import Lot
from slimfleet.coordinator.sending.dispatch import Dispatch
from slimfleet.coordinator.transport.flower.link import Link
from slimfleet.coordinator.transport.flower.messages import Reply
from slimfleet.coordinator.transport.flower.packing import Packing, Parcel

POLL_S = 0.05
"""Pause between two looks for answers, where none had come."""


class Post:
    """What is under way between a coordinator and its devices.

    A virtual reply may arrive later than the transport brings it, and replies are handed out by that order; equal
    moments go by node. So the same answers in the same times come in the same order, whatever computed them.
    """

    def __init__(
        self, grid: Link, environment: Environment, meanwhile: Callable[[], object], packing: Packing
    ) -> None:
        """`meanwhile` is called at every look at the grid; `packing` says how work travels over it."""
        self._grid, self._environment, self._meanwhile = grid, environment, meanwhile
        self._packing = packing
        self._waiting: dict[str, Parcel] = {}
        """Message id -> the work that the transport has brought no reply to."""
        self._come: list[tuple[float, int, int, int, Reply | Lot]] = []
        """A heap of replies: when each arrives, its node, a serial number, and the plan that it answers."""
        self._serial = count()

    def send(self, dispatches: Iterable[Dispatch]) -> None:
        """Give devices their work."""
        batch = tuple(dispatches)
        if batch:
            parcels = self._packing.parcels(batch)
            ids = self._grid.push_messages([parcel.message for parcel in parcels])
            self._waiting |= dict(zip(ids, parcels, strict=True))

    def next_before(self, until_s: float) -> tuple[int, Reply | Lot] | None:
        """The next reply and the plan that it answers; None where `until_s` comes first."""
        while True:
            some = self._look()
            first_s = min([until_s, *(each[0] for each in self._come[:1])])
            if self._environment.reach(first_s, more_may_come=bool(self._waiting)):
                # What has come by now is not too late for having been looked for late.
                if not self._come or self._come[0][0] > self._environment.now_s():
                    return None
                *_, plan_id, reply = heapq.heappop(self._come)
                return plan_id, reply
            if not some:
                time.sleep(POLL_S)

    def forget(self, plan_ids: Collection[int]) -> None:
        """Do not hand out replies to these plans any more."""
        left = {id_: parcel.without(plan_ids) for id_, parcel in self._waiting.items()}
        self._waiting = {id_: parcel for id_, parcel in left.items() if parcel.dispatches}
        self._come = [each for each in self._come if each[3] not in plan_ids]
        heapq.heapify(self._come)

    def _look(self) -> bool:
        """Take what the transport has; whether there was anything."""
        self._meanwhile()
        if not self._waiting:
            return False
        messages = list(self._grid.pull_messages(list(self._waiting)))
        for message in messages:
            parcel = self._waiting.pop(message.metadata.reply_to_message_id, None)
            if parcel is None:
                continue
            for came in self._packing.opened(parcel, message):
                arrives_s = self._environment.arrival_s(came.dispatch, came.took_s)
                place = arrives_s, came.dispatch.node, next(self._serial)
                heapq.heappush(self._come, (*place, came.plan_id, came.reply))
        return bool(messages)
