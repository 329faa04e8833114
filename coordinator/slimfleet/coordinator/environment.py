"""Environments: what time it is, and which devices can be reached in what condition.

A deployment lives in wall-clock time; a simulation brings its own world with virtual time. Both are parameters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from slimfleet.compression import Condition, Cost
from slimfleet.compression.types import UNKNOWN
from slimfleet.coordinator.receiving.answer import Answer
from slimfleet.coordinator.registry import DeviceRecord
from slimfleet.coordinator.settings import CONDITION_MAX_AGE_S


class Environment(Protocol):
    """Time and reachability."""

    def now_s(self) -> float:
        """Seconds since some fixed moment."""
        ...

    def status(self, device: DeviceRecord, round_number: int) -> Condition | None:
        """The condition of a device, or None when it cannot take work now."""
        ...

    def charge(self, node: int) -> tuple[float | None, float | None]:
        """State of charge of a device at the start of the run and now, 0..1; None on mains or not known."""
        ...

    def advance(self, now_s: float, answers: Sequence[Answer], round_number: int) -> Mapping[int, Cost]:
        """Let the world move on: a round that was open at `now_s` is over.

        `answers` are those to its dispatches, in order of node. Returns what devices without a report spent, by node
        and as far as that is known.
        """
        ...

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint must keep of the world."""
        ...

    def restore(self, values: dict[str, Any]) -> None:
        """Restore what `to_json` returned."""
        ...


class WallEnvironment:
    """A deployment: time passes by itself, and every connected node counts as reachable.

    A device is in the condition that it stated last; one that is older than `max_age_s` is unknown.
    """

    def __init__(
        self, clock: Callable[[], float] = time.time, max_age_s: float = CONDITION_MAX_AGE_S
    ) -> None:
        self._clock, self._max_age_s = clock, max_age_s

    def now_s(self) -> float:
        """Wall-clock time."""
        return self._clock()

    def status(self, device: DeviceRecord, round_number: int) -> Condition | None:
        """What the device stated last."""
        at_s = device.stated_at_s
        return device.stated if at_s is not None and self._is_recent(at_s) else UNKNOWN

    def charge(self, node: int) -> tuple[float | None, float | None]:
        """Not known."""
        return None, None

    def advance(self, now_s: float, answers: Sequence[Answer], round_number: int) -> Mapping[int, Cost]:
        """What devices say that they had spent when they refused; that of silent ones is not known."""
        return {
            a.dispatch.node: a.spent.cost for a in answers if a.dispatch is not None and a.spent is not None
        }

    def to_json(self) -> dict[str, Any]:
        """The wall clock needs no checkpoint; what devices stated is in the registry."""
        return {}

    def restore(self, values: dict[str, Any]) -> None:
        """The wall clock needs no checkpoint."""

    def _is_recent(self, at_s: float) -> bool:
        """A clock that was set back makes no statement of the future."""
        return 0 <= self._clock() - at_s <= self._max_age_s
