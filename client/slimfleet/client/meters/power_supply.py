"""Power supply: the battery's own gauge, whose power is sampled and integrated.

Drivers follow three conventions for the sign of a current: negative while the battery gives (the kernel's ABI),
positive while it gives, or a magnitude without a sign. `status` tells the direction; a sign that turns in mid-window
tells that the direction did, before the status does.
"""

from __future__ import annotations

from functools import partial
from math import copysign
from pathlib import Path

from slimfleet.client.meters.battery import POWER_SUPPLY, BatteryStatus, read_batteries
from slimfleet.client.meters.sampled import Sensor, trapezoid

__all__ = ["find_gauges"]

ERROR = 0.1
"""Of fuel gauges, whose drivers average over times that they do not tell."""


def find_gauges(root: Path = POWER_SUPPLY) -> Sensor[float] | None:
    """All batteries together. There is no value where one charges, is full or does not report its state, since its
    power is then not that of the device: a window in which that happens has no reading."""
    batteries = read_batteries(root)
    if not batteries:
        return None
    names = [battery.name for battery in batteries]
    look = partial(_given_w, root, names, {})
    return Sensor(f"power supply {' + '.join(names)}", look, trapezoid, ERROR, bridged_s=0.0)


def _given_w(root: Path, names: list[str], signs: dict[str, float]) -> float | None:
    """Watts that these batteries together give; None unless each discharges and reports its power. `signs` are those
    that their drivers have shown, and are kept."""
    batteries = read_batteries(root)
    watts = [
        battery.power_w
        for battery in batteries
        if battery.discharging and battery.power_w is not None and not _turned(battery, signs)
    ]
    there = [battery.name for battery in batteries] == names and len(watts) == len(names)
    return sum(watts) if there else None


def _turned(battery: BatteryStatus, signs: dict[str, float]) -> bool:
    """Whether its current flows the other way than before."""
    if not battery.flow_w:
        return False
    sign = copysign(1.0, battery.flow_w)
    return signs.setdefault(battery.name, sign) != sign
