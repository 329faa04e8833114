"""Post: dispatches out over a link, and the answers back in order of arrival by the environment's time."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Collection, Iterable
from itertools import count

from slimfleet.coordinator.entries import Failed, Received
from slimfleet.coordinator.environment import Environment
from slimfleet.coordinator.receiving.lot import Lot
from slimfleet.coordinator.sending.dispatch import Dispatch
from slimfleet.coordinator.transport.link import Link

POLL_S = 0.05
"""Pause between two looks for answers, where none had come."""


class Post:
    """What is under way between a coordinator and its devices.

    A virtual answer may arrive later than the transport brings it, and answers are handed out by that order; equal
    moments go by node. So the same answers in the same times come in the same order, whatever computed them.
    """

    def __init__(self, link: Link, environment: Environment, meanwhile: Callable[[], object]) -> None:
        """`meanwhile` is called at every look at the link."""
        self._link, self._environment, self._meanwhile = link, environment, meanwhile
        self._come: list[tuple[float, int, int, int, Received | Failed | Lot]] = []
        """A heap of answers: when each arrives, its node, a serial number, and the plan that it answers."""
        self._serial = count()

    def send(self, dispatches: Iterable[Dispatch]) -> None:
        """Give devices their work."""
        batch = tuple(dispatches)
        if batch:
            self._link.send(batch)

    def next_before(self, until_s: float) -> Received | Failed | Lot | None:
        """The next answer; None where `until_s` comes first."""
        while True:
            some = self._look()
            first_s = min([until_s, *(each[0] for each in self._come[:1])])
            if self._environment.reach(first_s, more_may_come=self._link.is_waiting()):
                # What has come by now is not too late for having been looked for late.
                if not self._come or self._come[0][0] > self._environment.now_s():
                    return None
                return heapq.heappop(self._come)[-1]
            if not some:
                time.sleep(POLL_S)

    def forget(self, plan_ids: Collection[int]) -> None:
        """Do not hand out answers to these plans any more."""
        self._link.forget(plan_ids)
        self._come = [each for each in self._come if each[3] not in plan_ids]
        heapq.heapify(self._come)

    def _look(self) -> bool:
        """Take what the link has; whether there was anything."""
        self._meanwhile()
        came = self._link.came()
        for each in came:
            arrives_s = self._environment.arrival_s(each.dispatch, each.took_s)
            place = arrives_s, each.dispatch.node, next(self._serial)
            heapq.heappush(self._come, (*place, each.plan_id, each.answer))
        return bool(came)
