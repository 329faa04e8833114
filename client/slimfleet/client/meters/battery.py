"""Batteries and chargers, as Linux shows them under /sys/class/power_supply.

Units of the files (Documentation/ABI/testing/sysfs-class-power in the kernel): microvolt, microampere,
microwatt, microwatt-hour, microampere-hour, percent and tenths of a degree Celsius.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import copysign
from pathlib import Path

from slimfleet.client.meters.sysfs import read_number, read_word

POWER_SUPPLY = Path("/sys/class/power_supply")


@dataclass(frozen=True, slots=True)
class BatteryStatus:
    """A battery at one moment; None where the driver has no such file or it holds no number."""

    name: str
    discharging: bool
    power_w: float | None
    """Magnitude of the power: drivers disagree about the sign; the direction is in `discharging`."""
    flow_w: float | None
    """The same with the driver's own sign."""
    stored_j: float | None
    charge_c: float | None
    voltage_v: float | None
    state: str | None
    """In the driver's word: Charging, Discharging, Not charging, Full or Unknown."""
    level: float | None
    """State of charge, 0..1."""
    temperature_c: float | None


def read_batteries(root: Path = POWER_SUPPLY) -> list[BatteryStatus]:
    """The batteries of this machine, in order of name; empty where there are none.

    Mains adapters, USB supplies, empty bays and the batteries of peripherals (scope `Device`) are left out.
    """
    found = [folder for folder in _supplies(root) if read_word(folder / "type") == "Battery"]
    return [_read(folder) for folder in found if read_word(folder / "present") != "0"]


def read_chargers(root: Path = POWER_SUPPLY) -> list[bool | None]:
    """Whether each adapter of this machine gives power (mains, USB, wireless); None where its driver does not say."""
    found = [
        folder for folder in _supplies(root) if read_word(folder / "type") not in ("Battery", "UPS", None)
    ]
    online = [read_number(folder / "online", 1) for folder in found]
    return [None if each is None else each > 0 for each in online]


def _supplies(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return [folder for folder in sorted(root.iterdir()) if read_word(folder / "scope") != "Device"]


def _read(folder: Path) -> BatteryStatus:
    voltage = read_number(folder / "voltage_now", 1e-6)
    stored = read_number(folder / "energy_now", 3600e-6)
    state = read_word(folder / "status")
    flow = _flow_w(folder, voltage)
    return BatteryStatus(
        name=folder.name,
        discharging=state == "Discharging",
        power_w=None if flow is None else abs(flow),
        flow_w=flow,
        stored_j=stored,
        charge_c=read_number(folder / "charge_now", 3600e-6),
        voltage_v=voltage,
        state=state,
        level=_level(folder),
        temperature_c=read_number(folder / "temp", 0.1),
    )


def _level(folder: Path) -> float | None:
    """The driver's percentage, else what is stored over what fits; None where neither makes sense."""
    percent = read_number(folder / "capacity", 1)
    level = None if percent is None else percent / 100
    for kind in ("energy", "charge"):
        now, full = read_number(folder / f"{kind}_now", 1), read_number(folder / f"{kind}_full", 1)
        if level is None and now is not None and full:
            level = now / full
    return level if level is not None and 0 <= level <= 1 else None


def _flow_w(folder: Path, voltage: float | None) -> float | None:
    """Power with the sign of the current, where there is one; a driver's power often has none."""
    power = read_number(folder / "power_now", 1e-6)
    current = read_number(folder / "current_now", 1e-6)
    if power is not None:
        return copysign(power, current) if current else power
    return None if current is None or voltage is None else current * voltage
