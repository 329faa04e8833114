"""PMIC: the power management chip of a Raspberry Pi 5, as `vcgencmd pmic_read_adc` tells it.

A line a value, `VDD_CORE_A current(7)=0.71150000A` or `VDD_CORE_V volt(15)=0.72066320V`; older firmware indents them.
Rails with a voltage alone (EXT5V, BATT) have no power. What the converters lose and what USB devices draw is no part of
the rails.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from slimfleet.client.meters.command import Ask, asking
from slimfleet.client.meters.sampled import Sensor, trapezoid

__all__ = ["find_pmic"]

_VALUE = re.compile(r"^\s*(\w+)_([AV])\s+(?:current|volt)\(\d+\)=(\d+(?:\.\d+)?)[AV]?\s*$", re.MULTILINE)

ERROR = 0.2
"""Rails sum to some 85 % of what the board draws at its plug: 1.1451·sum + 0.59 W was fitted to one board
(pitop.hongjunwu.com/guide/power). The sum is left as the chip has it."""


def find_pmic(ask: Ask | None = None) -> Sensor[float] | None:
    """The rails that have a current and a voltage now; None where there is no such command."""
    asked = asking(("vcgencmd", "pmic_read_adc")) if ask is None else ask
    rails = dict(_rails(asked() or "")).keys()
    if not rails:
        return None

    def look() -> float | None:
        watts = dict(_rails(asked() or ""))
        # A sum without one of the rails would be too low.
        return sum(watts[rail] for rail in rails) if rails <= watts.keys() else None

    return Sensor(f"pmic, {len(rails)} rails", look, trapezoid, ERROR)


def _rails(text: str) -> Iterator[tuple[str, float]]:
    """The watts of each rail."""
    values: dict[str, dict[str, float]] = {"A": {}, "V": {}}
    for rail, unit, value in _VALUE.findall(text):
        values[unit][rail] = float(value)
    for rail, amperes in values["A"].items():
        if rail in values["V"]:
            yield rail, amperes * values["V"][rail]
