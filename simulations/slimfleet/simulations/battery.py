"""Battery in virtual time: rounds drain it, a nightly charger fills it."""

from __future__ import annotations

from dataclasses import dataclass, replace

DAY_S = 86_400.0
PLUGGED_S = 8 * 3600.0
"""The charger is connected for eight hours a day."""
FULL_CHARGE_S = 2 * 3600.0
"""It fills an empty battery in two hours, at constant power."""


@dataclass(frozen=True, slots=True)
class VirtualBattery:
    """State of charge at one moment of virtual time. Other use of the device is not modelled."""

    capacity_j: float
    plugged_from_s: float
    """Second of the (virtual) day at which the charger is connected."""
    charge_j: float
    at_s: float = 0.0

    def at(self, now_s: float) -> VirtualBattery:
        """The battery at a later moment, recharged in between; exact, because nothing drains it meanwhile."""
        plugged = self._plugged_until(now_s) - self._plugged_until(self.at_s)
        charged = self.charge_j + plugged * self.capacity_j / FULL_CHARGE_S
        return replace(self, charge_j=min(charged, self.capacity_j), at_s=now_s)

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
        return (self.at_s - self.plugged_from_s) % DAY_S < PLUGGED_S

    def _plugged_until(self, now_s: float) -> float:
        """Seconds on the charger between an arbitrary origin and `now_s`."""
        days, second = divmod(now_s - self.plugged_from_s, DAY_S)
        return days * PLUGGED_S + min(second, PLUGGED_S)
