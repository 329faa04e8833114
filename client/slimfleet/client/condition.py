"""Condition of this machine, as Linux shows it under /sys and /proc; what it does not show is unknown."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from slimfleet.client.governor.memory import free_memory_bytes
from slimfleet.client.meters.battery import BatteryStatus, read_batteries, read_chargers
from slimfleet.client.meters.sysfs import read_number
from slimfleet.compression.types import Condition

__all__ = ["LOOK_S", "looking", "read_condition"]

LOOK_S = 0.5
"""Steps of half a second and more have a look each; with shorter ones, a change is seen within a second."""

COLDEST_C, WARMEST_C = -60.0, 200.0
"""Readings outside are those of a broken or disabled sensor."""


def read_condition(
    root: Path = Path("/"), metered: bool | None = None, memory_reserve_bytes: int = 0
) -> Condition:
    """The condition now, from the files under `root`.

    Of several batteries, the lowest charge counts; of several temperatures, the highest. No file says whether a link is
    metered: `metered` is what the owner says. Of the free memory `memory_reserve_bytes` are left to the system.
    """
    supplies = root / "sys" / "class" / "power_supply"
    batteries = read_batteries(supplies)
    return Condition(
        battery=_charge(batteries),
        charging=_charging(batteries, read_chargers(supplies)),
        metered=metered,
        temperature_c=_temperature_c(batteries, root / "sys" / "class" / "thermal"),
        free_memory_bytes=free_memory_bytes(root, memory_reserve_bytes),
    )


def looking(
    look: Callable[[], Condition], clock: Callable[[], float] = time.monotonic
) -> Callable[[], Condition]:
    """The condition as `look` finds it, at most `LOOK_S` old: between short steps, sensors are not read every time."""
    seen: list[tuple[float, Condition]] = []

    def recent() -> Condition:
        now_s = clock()
        if not seen or now_s - seen[0][0] >= LOOK_S:
            seen[:] = [(now_s, look())]
        return seen[0][1]

    return recent


def _charge(batteries: Sequence[BatteryStatus]) -> float | None:
    levels = [battery.level for battery in batteries]
    known = [level for level in levels if level is not None]
    return min(known) if known and len(known) == len(levels) else None


def _charging(batteries: Sequence[BatteryStatus], chargers: Sequence[bool | None]) -> bool | None:
    """A battery that gives energy is not charged, whatever is plugged in: the charger is too weak for the load."""
    if any(battery.discharging for battery in batteries):
        return False
    if any(chargers) or any(battery.state in ("Charging", "Full") for battery in batteries):
        return True
    return False if chargers and all(online is False for online in chargers) else None


def _temperature_c(batteries: Sequence[BatteryStatus], thermal: Path) -> float | None:
    zones = [read_number(zone / "temp", 1e-3) for zone in thermal.glob("thermal_zone*")]
    readings = [*zones, *(battery.temperature_c for battery in batteries)]
    return max(
        (each for each in readings if each is not None and COLDEST_C <= each <= WARMEST_C), default=None
    )
