"""Work in flight: dispatches by plan, and what pacing asks of all of them at every answer, without a walk over them."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, MutableMapping
from math import inf

from slimfleet.coordinator.sending.dispatch import Dispatch

__all__ = ["InFlight"]


class InFlight(MutableMapping[int, Dispatch]):
    """Plan id -> work that no answer has come to yet, in the order in which it was put in flight."""

    def __init__(self, dispatches: Iterable[Dispatch] = ()) -> None:
        self._by_plan: dict[int, Dispatch] = {}
        self._sent: list[tuple[float, int]] = []
        """A heap of when each was sent, and its plan; some are no longer in flight."""
        self._of_version: Counter[int] = Counter()
        self.put(dispatches)

    def put(self, dispatches: Iterable[Dispatch]) -> None:
        """Add dispatches under their plan ids."""
        for dispatch in dispatches:
            self[dispatch.plan_id] = dispatch

    def first_sent_s(self) -> float:
        """When the oldest was sent, by the environment's time; inf where nothing is in flight."""
        while self._sent and not self._is_current(*self._sent[0]):
            heapq.heappop(self._sent)
        return self._sent[0][0] if self._sent else inf

    def of_version(self, version: int) -> int:
        """How many start from the model of this round."""
        return self._of_version[version]

    def versions(self) -> set[int]:
        """The rounds whose models they start from."""
        return set(+self._of_version)

    def __getitem__(self, plan_id: int) -> Dispatch:
        return self._by_plan[plan_id]

    def __setitem__(self, plan_id: int, dispatch: Dispatch) -> None:
        self.pop(plan_id, None)
        self._by_plan[plan_id] = dispatch
        self._of_version[dispatch.version] += 1
        heapq.heappush(self._sent, (dispatch.sent_s, plan_id))

    def __delitem__(self, plan_id: int) -> None:
        dispatch = self._by_plan.pop(plan_id)
        self._of_version[dispatch.version] -= 1
        if len(self._sent) > 2 * len(self) + 8:  # one silent device must not keep the times of all others
            self._sent = [(each.sent_s, plan_id) for plan_id, each in self._by_plan.items()]
            heapq.heapify(self._sent)

    def __iter__(self) -> Iterator[int]:
        return iter(self._by_plan)

    def __len__(self) -> int:
        return len(self._by_plan)

    def _is_current(self, sent_s: float, plan_id: int) -> bool:
        dispatch = self._by_plan.get(plan_id)
        return dispatch is not None and dispatch.sent_s == sent_s
