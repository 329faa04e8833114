"""Post: dispatches out over a Flower grid, and the replies back in order of arrival by the environment's time."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Collection, Iterable
from itertools import count

from flwr.serverapp import Grid

from slimfleet.coordinator.environment import Environment
from slimfleet.coordinator.sending.dispatch import Dispatch
from slimfleet.coordinator.transport.flower.messages import Reply, train_messages
from slimfleet.coordinator.transport.flower.pushing import push

POLL_S = 0.05
"""Pause between two looks for answers, where none had come."""

NO_PLAN = -1
"""Plan that a reply answers which does not come from the node that was given the work: it counts as a replay."""


class Post:
    """What is under way between a coordinator and its devices.

    A virtual reply may arrive later than the transport brings it, and replies are handed out by that order; equal
    moments go by node. So the same answers in the same times come in the same order, whatever computed them.
    """

    def __init__(
        self,
        grid: Grid,
        environment: Environment,
        meanwhile: Callable[[], object],
        valid_s: float | None = None,
    ) -> None:
        """`meanwhile` is called at every look at the grid. Work that a node has not fetched within `valid_s` of
        wall-clock time is dropped by the grid: a node that hung does not have to do it once it wakes."""
        self._grid, self._environment, self._meanwhile = grid, environment, meanwhile
        self._valid_s = valid_s
        self._waiting: dict[str, Dispatch] = {}
        """Message id -> the work that the transport has brought no reply to."""
        self._come: list[tuple[float, int, int, int, Reply]] = []
        """A heap of replies: when each arrives, its node, a serial number, and the plan that it answers."""
        self._serial = count()

    def send(self, dispatches: Iterable[Dispatch]) -> None:
        """Give devices their work."""
        batch = tuple(dispatches)
        if batch:
            ids = push(self._grid, train_messages(batch, self._valid_s))
            self._waiting |= dict(zip(ids, batch, strict=True))

    def next_before(self, until_s: float) -> tuple[int, Reply] | None:
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
        self._waiting = {id_: each for id_, each in self._waiting.items() if each.plan_id not in plan_ids}
        self._come = [each for each in self._come if each[3] not in plan_ids]
        heapq.heapify(self._come)

    def _look(self) -> bool:
        """Take what the transport has; whether there was anything."""
        self._meanwhile()
        if not self._waiting:
            return False
        messages = list(self._grid.pull_messages(list(self._waiting)))
        for message in messages:
            dispatch = self._waiting.pop(message.metadata.reply_to_message_id, None)
            if dispatch is None:
                continue
            # The link answers, under a number of its own, for nodes that are gone.
            fits = message.has_error() or message.metadata.src_node_id == dispatch.node
            reply = Reply.of(message)
            arrives_s = self._environment.arrival_s(dispatch, reply.time_s)
            plan_id = dispatch.plan_id if fits else NO_PLAN
            heapq.heappush(self._come, (arrives_s, dispatch.node, next(self._serial), plan_id, reply))
        return bool(messages)
