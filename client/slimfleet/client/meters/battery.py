"""Batteries, as Linux shows them under /sys/class/power_supply.

Units of the files (Documentation/ABI/testing/sysfs-class-power in the kernel): microvolt, microampere,
microwatt, microwatt-hour and microampere-hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

POWER_SUPPLY = Path("/sys/class/power_supply")


@dataclass(frozen=True, slots=True)
class BatteryStatus:
    """A battery at one moment; None where the driver has no such file or it holds no number."""

    name: str
    discharging: bool
    power_w: float | None
    """Magnitude of the power: drivers disagree about the sign; the direction is in `discharging`."""
    stored_j: float | None
    charge_c: float | None
    voltage_v: float | None


def read_batteries(root: Path = POWER_SUPPLY) -> list[BatteryStatus]:
    """The batteries of this machine, in order of name; empty where there are none.

    Mains adapters, USB supplies and the batteries of peripherals (scope `Device`) are left out.
    """
    if not root.is_dir():
        return []
    return [
        _read(folder)
        for folder in sorted(root.iterdir())
        if _word(folder / "type") == "Battery" and _word(folder / "scope") != "Device"
    ]


def _read(folder: Path) -> BatteryStatus:
    voltage = _number(folder / "voltage_now", 1e-6)
    stored = _number(folder / "energy_now", 3600e-6)
    return BatteryStatus(
        name=folder.name,
        discharging=_word(folder / "status") == "Discharging",
        power_w=_power_w(folder, voltage),
        stored_j=stored,
        charge_c=_number(folder / "charge_now", 3600e-6),
        voltage_v=voltage,
    )


def _power_w(folder: Path, voltage: float | None) -> float | None:
    power = _number(folder / "power_now", 1e-6)
    if power is not None:
        return abs(power)
    current = _number(folder / "current_now", 1e-6)
    return None if current is None or voltage is None else abs(current) * voltage


def _word(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:  # the file is optional, and drivers answer ENODATA while they have no value
        return None


def _number(path: Path, unit: float) -> float | None:
    word = _word(path)
    try:
        return None if word is None else int(word) * unit
    except ValueError:
        return None
