"""Battery in virtual time: rounds drain it, a nightly charger fills it. A number is one device, an array many."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import floor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["DAY_S", "FULL_CHARGE_S", "PLUGGED_S", "Charger", "Presence", "VirtualBattery", "charged"]

DAY_S = 86_400.0
PLUGGED_S = 8 * 3600.0
"""The charger is connected for eight hours a day."""
FULL_CHARGE_S = 2 * 3600.0
"""It fills an empty battery in two hours, at constant power."""

Floats = NDArray[np.float64]


class Presence(Protocol):
    """When one device or many are on their chargers."""

    def at(self, numbers: NDArray[np.intp] | int) -> Presence:
        """That of some of many devices."""
        ...

    def look(self, now_s: float) -> tuple[Floats, NDArray[np.bool_]]:
        """Seconds on the charger between an arbitrary origin and `now_s`, and whether it is connected then; of one
        device numbers."""
        ...

    def until(self, now_s: float) -> Floats:
        """Seconds on the charger between an arbitrary origin and `now_s`."""
        ...

    def left_s(self, now_s: float) -> Floats:
        """Seconds until the charger is disconnected; 0 where it is not connected."""
        ...


@dataclass(frozen=True, slots=True)
class Charger:
    """When a device is on its charger: from `from_s` on, for `on_s` of every `period_s`."""

    from_s: float | Floats
    period_s: float | Floats = DAY_S
    on_s: float | Floats = PLUGGED_S

    def at(self, numbers: NDArray[np.intp] | int) -> Charger:
        """The chargers of some of many devices."""
        shared = (self.from_s, self.period_s, self.on_s)
        chosen = [each[numbers] if isinstance(each, np.ndarray) else each for each in shared]
        # Plain floats of one device: numpy takes ten times as long over a single number.
        return Charger(*chosen) if isinstance(numbers, np.ndarray) else Charger(*map(float, chosen))

    def look(self, now_s: float) -> tuple[Floats, NDArray[np.bool_]]:
        """Seconds on the charger between an arbitrary origin and `now_s`, and whether it is connected then."""
        since_s: Any = now_s - self.from_s
        one = isinstance(since_s, float) and not isinstance(self.period_s, np.ndarray)
        periods = floor(since_s / self.period_s) if one else np.floor(since_s / self.period_s)
        # The quotient may be rounded up to a whole number; the remainder is exact.
        periods -= since_s < periods * self.period_s
        second = since_s - periods * self.period_s
        plugged_s = periods * self.on_s + (min if one else np.minimum)(second, self.on_s)
        return plugged_s, second < self.on_s

    def left_s(self, now_s: float) -> Floats:
        """Seconds until the charger is disconnected; 0 where it is not connected."""
        second = (now_s - self.from_s) % self.period_s
        left_s: Floats = np.maximum(np.asarray(self.on_s - second), 0.0)
        return left_s

    def until(self, now_s: float) -> Floats:
        """Seconds on the charger between an arbitrary origin and `now_s`."""
        return self.look(now_s)[0]


def charged(charge_j: float | Floats, capacity_j: float | Floats, plugged_s: float | Floats) -> Floats:
    """The charge after so many seconds on the charger; exact, because nothing drains a device meanwhile."""
    return np.asarray(np.minimum(charge_j + plugged_s * capacity_j / FULL_CHARGE_S, capacity_j))


@dataclass(frozen=True, slots=True)
class VirtualBattery:
    """State of charge of one device at one moment of virtual time. Other use of the device is not modelled."""

    capacity_j: float
    charger: Presence
    charge_j: float
    at_s: float = 0.0

    def at(self, now_s: float) -> VirtualBattery:
        """The battery at a later moment, recharged in between."""
        plugged_s = float(self.charger.until(now_s) - self.charger.until(self.at_s))
        return replace(self, charge_j=float(charged(self.charge_j, self.capacity_j, plugged_s)), at_s=now_s)

    def drained(self, joules: float) -> VirtualBattery:
        """The battery after spending energy; it cannot be less than empty."""
        return replace(self, charge_j=max(self.charge_j - joules, 0.0))

    @property
    def level(self) -> float:
        """State of charge, 0..1."""
        return self.charge_j / self.capacity_j

    @property
    def charging(self) -> bool:
        """Whether the charger is connected now."""
        return bool(self.charger.look(self.at_s)[1])
