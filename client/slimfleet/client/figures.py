"""Figures of a device's profile, each with its origin."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any, Literal

from slimfleet.compression import BadInput, DeviceProfile
from slimfleet.compression.edge.checked import checked, refuse_unlisted
from slimfleet.compression.profiles import load_profiles

Origin = Literal["given", "measured", "table", "assumed", "unknown"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One field of a `DeviceProfile`."""

    value: Any
    origin: Origin


ASSUMED: Mapping[str, float | bool | str | None] = MappingProxyType(
    {
        "device_class": "device",
        "uplink_bytes_per_s": 2.5e6,
        "downlink_bytes_per_s": 2.5e6,
        "radio_j_per_byte_up": 5e-7,
        "radio_j_per_byte_down": 2.4e-7,
        "radio_j_per_burst": 0.5,
        "battery_j": None,
        "bfloat16": False,
        "runtime_base_bytes": None,
        "runtime_fixed_bytes": None,
        "runtime_activation_factor": None,
    }
)
"""Assumed where not given: slow wifi of 20 Mbit/s, as of a Raspberry Pi Zero 2 W; mains; float32; the memory of the
runtime itself."""


def profile_figures(
    given: Mapping[str, Any], measured: Mapping[str, Any], like: DeviceProfile | None = None
) -> dict[str, Figure]:
    """Every field of a profile: as given, else as measured, else as of the device `like`, else assumed or unknown.

    A value of None counts as not given, or not measured.
    """
    table = {} if like is None else asdict(like)
    figures = {}
    for name in (field.name for field in fields(DeviceProfile)):
        if given.get(name) is not None:
            figures[name] = Figure(given[name], "given")
        elif measured.get(name) is not None:
            figures[name] = Figure(measured[name], "measured")
        elif name in table:
            figures[name] = Figure(table[name], "table")
        elif name in ASSUMED:
            figures[name] = Figure(ASSUMED[name], "assumed")
        else:
            figures[name] = Figure(None, "unknown")
    return figures


def profile_like(name: str) -> DeviceProfile:
    """The device called `name` in the table that ships with slimfleet. Raises BadInput for one that is not there."""
    rows = {row.name: row for row in load_profiles()}
    refuse_unlisted([name], rows, lambda key: f"--like {name}", "the table of devices")
    return rows[name].profile


def profile_of(figures: Mapping[str, Figure]) -> DeviceProfile:
    """The profile. Raises BadInput naming what is neither measured nor given, or what is out of bounds."""
    unknown = [name for name, figure in figures.items() if figure.origin == "unknown"]
    if unknown:
        options = " and ".join(f"--{name.replace('_', '-')}" for name in unknown)
        raise BadInput(
            f"{' and '.join(unknown)} could not be measured here: give {options}, "
            f"from a power meter, or --like with a device of the table"
        )
    values = {name: figure.value for name, figure in figures.items()}
    return checked(DeviceProfile, values, "the profile of this machine")


def ram_bytes() -> int | None:
    """Installed memory; None where the operating system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on Windows
        return None


def cores() -> int:
    """Processor cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux
    return len(affinity(0)) if affinity else os.cpu_count() or 1
