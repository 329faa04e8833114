"""Outcome of a run: one record that the reports, tables and plots all read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from slimfleet.compression.types import EnergySource
from slimfleet.coordinator import RoundRow

__all__ = ["DeviceRow", "RunRecord"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRow:
    """One device over the whole run; sums are over its rounds, spent costs throughout."""

    device: int
    """Number of the device in the fleet, from 0."""
    name: str
    """Of its profile."""
    device_class: str
    participations: int
    """Rounds whose update was used."""
    skips: int
    rejections: int
    failures: int
    energy_j: float
    uplink_bytes: int
    downlink_bytes: int
    time_s: float
    """Virtual time spent at work."""
    mean_width: float | None
    """Over its participations; None without any."""
    battery_left: float | None
    """State of charge at the end, 0..1; None on mains."""
    violations: int
    last_reason: str = ""
    """Why it last got its plan, or none; empty when it was never considered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run of a scenario: round by round, device by device, and what went wrong, counted."""

    scenario: str
    seed: int
    backend: str
    devices: int
    rows: tuple[RoundRow, ...]
    device_rows: tuple[DeviceRow, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Constraint that no plan could keep -> number of times."""
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Reason an update was refused -> number of times."""
    failed: Mapping[str, int] = field(default_factory=dict)
    """Why no usable answer came -> number of times."""
    violations: Mapping[str, int] = field(default_factory=dict)
    """Budget constraint broken, judged by spent cost -> number of times."""
    energy_source: EnergySource = "simulated"
    wall_time_s: float = 0.0
