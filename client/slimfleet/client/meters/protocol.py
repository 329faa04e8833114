"""Meter seam: what every meter does, and what it reads."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

from slimfleet.compression.types import EnergySource


@dataclass(frozen=True, slots=True)
class Reading:
    """Energy of one window, from `start` to `stop`, as the sensor has it: gross, idle power included."""

    energy_j: float
    duration_s: float
    source: EnergySource
    samples: int
    """Number of samples of the sensor that it rests on."""
    sensor: str = ""
    """What was read, for people: the driver, its rails, and what was taken for granted about their units."""
    uncertainty_j: float = 0.0
    """How far `energy_j` may be off, either way: the error of the sensor, and changes of power between samples."""
    trace: tuple[tuple[float, float], ...] = field(default=(), repr=False, compare=False)
    """(time by the meter's clock, joules since the start) in order of time, the last with `energy_j`; empty where the
    meter knows only the sum."""

    @property
    def mean_w(self) -> float | None:
        """Mean power over the window; None for an empty window."""
        return self.energy_j / self.duration_s if self.duration_s > 0 else None

    @property
    def error(self) -> float:
        """`uncertainty_j` as a share of the energy; 0 where there is none."""
        return self.uncertainty_j / self.energy_j if self.energy_j > 0 else 0.0


class Meter(Protocol):
    """Measures the energy of one window after another."""

    def start(self) -> None:
        """Begin a window; one that is still open is thrown away."""
        ...

    def so_far(self) -> float | None:
        """Joules since the start, at constant power since the last sample; None where nothing is known while the window
        is open."""
        ...

    def stop(self) -> Reading | None:
        """End the window. None where there is no sensor, no open window or too few samples: never a guess."""
        ...


class NoMeter:
    """A device that cannot measure."""

    def start(self) -> None:
        """Nothing to begin."""

    def so_far(self) -> float | None:
        """Nothing known."""
        return None

    def stop(self) -> Reading | None:
        """No reading."""
        return None


def net_of_idle(reading: Reading, idle_w: float) -> Reading:
    """The energy of the work itself, where a meter reads the whole device: less `idle_w` over the window, at
    least 0."""
    return replace(reading, energy_j=max(0.0, reading.energy_j - idle_w * reading.duration_s))
