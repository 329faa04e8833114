"""Termux: the battery of an Android phone, as `termux-battery-status` of the Termux:API app tells it, in JSON.

Vendors differ: a current is in microampere or milliampere, of either sign; a voltage in millivolt, microvolt or volt.
The unit is told from the size, once for a window, and named with the reading.
"""

from __future__ import annotations

import json
from typing import Any

from slimfleet.client.meters.command import Ask, asking
from slimfleet.client.meters.sampled import Sensor, trapezoid

__all__ = ["find_termux_battery"]

LEAST_MICROAMPERE = 10_000
"""A number below is milliampere: 10 mA is less than any phone takes that is awake, and 10 A is more than any gives."""

MOST_W = 50.0
"""A sample above is none: no phone gives so much."""

ERROR = 0.15
"""Of gauges that are read every few seconds, by drivers of unknown averaging."""

BRIDGED_S = 5.0


def find_termux_battery(ask: Ask | None = None) -> Sensor[float] | None:
    """The battery; None unless it discharges, and tells its current and its voltage."""
    asked = asking(("termux-battery-status",)) if ask is None else ask
    first = _discharging(asked())
    if first is None:
        return None
    current, voltage = first
    milli = current < LEAST_MICROAMPERE
    volt = 1.0 if voltage < 100 else 1e-3 if voltage < 100_000 else 1e-6

    def look() -> float | None:
        values = _discharging(asked())
        if values is None:
            return None
        watts = values[0] * (1e-3 if milli else 1e-6) * values[1] * volt
        return watts if watts <= MOST_W else None

    return Sensor(
        f"termux battery, current taken for {'mA' if milli else 'µA'}", look, trapezoid, ERROR, BRIDGED_S
    )


def _discharging(text: str | None) -> tuple[float, float] | None:
    """Current, as a magnitude, and voltage, in whatever units; None where the battery does not give the power."""
    try:
        status: Any = json.loads(text or "")
    except ValueError:
        return None
    if not isinstance(status, dict) or status.get("status") != "DISCHARGING":
        return None
    values = status.get("current"), status.get("voltage")
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        return None
    current, voltage = (abs(float(value)) for value in values if value is not None)
    return (current, voltage) if current > 0 and voltage > 0 else None
