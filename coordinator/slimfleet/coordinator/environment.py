"""Environments: what time it is, and which devices can be reached in what condition.

A deployment lives in wall-clock time; a simulation brings its own world with virtual time. Both are parameters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from slimfleet.compression import Condition, Cost
from slimfleet.compression.types import UNKNOWN
from slimfleet.coordinator.conditions import FleetConditions
from slimfleet.coordinator.receiving.answer import Answer
from slimfleet.coordinator.record import DeviceRecord
from slimfleet.coordinator.registry import Nodes, Registry
from slimfleet.coordinator.sending.dispatch import Dispatch
from slimfleet.coordinator.settings import CONDITION_MAX_AGE_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Instant:
    """One moment by both clocks of a coordinator."""

    now_s: float
    """By its environment."""
    at: float
    """By its stopwatch."""


class Environment(Protocol):
    """Time and reachability."""

    def now_s(self) -> float:
        """Seconds since some fixed moment."""
        ...

    def conditions(self, registry: Registry, nodes: Nodes, round_number: int) -> FleetConditions:
        """The conditions of registered devices, in the order of their nodes, and which of them can take work now."""
        ...

    def charge(self, node: int) -> tuple[float | None, float | None]:
        """State of charge of a device at the start of the run and now, 0..1; None on mains or not known."""
        ...

    def arrival_s(self, dispatch: Dispatch, took_s: float | None) -> float:
        """When an answer that has come over the transport counts as arrived.

        `took_s` is how long the device says that it worked; None where it does not say.
        """
        ...

    def reach(self, moment_s: float, more_may_come: bool) -> bool:
        """Whether it is `moment_s` by now. `more_may_come` says that answers are still under way in the transport.

        Time that passes by itself is only looked at. Virtual time moves there, once nothing can come before.
        """
        ...

    def rest(self) -> None:
        """Devices are idle between two rounds: let that time pass, where it does not by itself."""
        ...

    def spent(self, answers: Sequence[Answer]) -> Mapping[int, Cost]:
        """Take into account what the devices of these answers spent, in order of node.

        Returns what those without a report spent, by node and as far as that is known.
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
        self, clock: Callable[[], float] | None = None, max_age_s: float = CONDITION_MAX_AGE_S
    ) -> None:
        self._clock, self._max_age_s = clock or _steady_clock(), max_age_s

    def now_s(self) -> float:
        """Wall-clock time."""
        return self._clock()

    def conditions(self, registry: Registry, nodes: Nodes, round_number: int) -> FleetConditions:
        """What each device stated last."""
        return FleetConditions.of([self._condition(registry[node]) for node in nodes.tolist()])

    def charge(self, node: int) -> tuple[float | None, float | None]:
        """Not known."""
        return None, None

    def arrival_s(self, dispatch: Dispatch, took_s: float | None) -> float:
        """Now."""
        return self._clock()

    def reach(self, moment_s: float, more_may_come: bool) -> bool:
        """Whether the clock says so."""
        return self._clock() >= moment_s

    def rest(self) -> None:
        """A deployment goes on at once."""

    def spent(self, answers: Sequence[Answer]) -> Mapping[int, Cost]:
        """What devices say that they had spent when they refused; that of silent ones is not known."""
        return {
            a.dispatch.node: a.spent.cost for a in answers if a.dispatch is not None and a.spent is not None
        }

    def to_json(self) -> dict[str, Any]:
        """The wall clock needs no checkpoint; what devices stated is in the registry."""
        return {}

    def restore(self, values: dict[str, Any]) -> None:
        """The wall clock needs no checkpoint."""

    def _condition(self, device: DeviceRecord) -> Condition:
        at_s = device.stated_at_s
        return device.stated if at_s is not None and self._is_recent(at_s) else UNKNOWN

    def _is_recent(self, at_s: float) -> bool:
        """A clock that was set back makes no statement of the future."""
        return 0 <= self._clock() - at_s <= self._max_age_s


def _steady_clock() -> Callable[[], float]:
    """Wall-clock time that is not set back or forth while the process lasts."""
    began_s = time.time() - time.monotonic()
    return lambda: began_s + time.monotonic()
