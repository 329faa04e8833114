"""hwmon: power monitors of the INA2xx and INA3221 families under /sys/class/hwmon, as on Jetson boards.

Units of the files (Documentation/hwmon/sysfs-interface in the kernel): microwatt, millivolt, milliampere. A driver
shows `power1_input`, or the voltage and the current of each channel. Channel 0 of the INA2xx and the channels from 4 on
of the INA3221 are voltages over the shunt, not rails.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from slimfleet.client.meters.sampled import Sensor, all_known, trapezoid
from slimfleet.client.meters.sysfs import read_number, read_word

__all__ = ["HWMON", "find_rails"]

HWMON = Path("/sys/class/hwmon")
DRIVERS = "ina"
CHANNELS = (1, 2, 3)
INPUTS = ("VDD_IN", "POM_5V_IN", "VIN")
"""Rails that feed a whole board: Jetson Orin Nano and NX and Xavier NX, Nano, TX2."""

NOT_CONNECTED = "NC"
ERROR = 0.05
"""The chips are within 0.15 to 1 %, the shunts on boards within 1 to 5 %: what a board's maker does not say."""


@dataclass(frozen=True, slots=True)
class Rail:
    """One channel of a power monitor."""

    label: str
    folder: Path
    channel: int

    def watts(self) -> float | None:
        """Its power now."""
        power = read_number(self.folder / f"power{self.channel}_input", 1e-6)
        if power is not None:
            return abs(power)
        volts = read_number(self.folder / f"in{self.channel}_input", 1e-3)
        amperes = read_number(self.folder / f"curr{self.channel}_input", 1e-3)
        return None if volts is None or amperes is None else abs(volts * amperes)


def find_rails(root: Path = HWMON) -> Sensor[float] | None:
    """The rail that feeds the whole board, where there is one; else the sum of all rails that are connected."""
    rails = list(_rails(root))
    inputs = [rail for rail in rails if rail.label in INPUTS][:1]
    chosen = inputs or rails
    if not chosen:
        return None
    return Sensor(
        f"hwmon {' + '.join(rail.label for rail in chosen)}", partial(_sum_w, chosen), trapezoid, ERROR
    )


def _rails(root: Path) -> Iterator[Rail]:
    folders = sorted(root.iterdir()) if root.is_dir() else []
    for folder in folders:
        driver = read_word(folder / "name") or ""
        if not driver.startswith(DRIVERS):
            continue
        for channel in CHANNELS:
            label = read_word(folder / f"in{channel}_label") or read_word(folder / f"power{channel}_label")
            rail = Rail(label or f"{driver}/{folder.name}/{channel}", folder, channel)
            disabled = read_word(folder / f"in{channel}_enable") == "0"
            if not disabled and rail.label != NOT_CONNECTED and rail.watts() is not None:
                yield rail


def _sum_w(rails: list[Rail]) -> float | None:
    watts = all_known(rail.watts() for rail in rails)
    return None if watts is None else sum(watts)
