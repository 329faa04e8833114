"""Meter seam: what every meter does, and what it reads."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

from slimfleet.compression.types import EnergySource


@dataclass(frozen=True, slots=True)
class Reading:
    """Energy of one window, from `start` to `stop`."""

    energy_j: float
    duration_s: float
    source: EnergySource
    samples: int
    """Number of samples of the sensor that it rests on."""
    trace: tuple[tuple[float, float], ...] = field(default=(), repr=False, compare=False)
    """(time by the meter's clock, joules since the start) in order of time, the last with `energy_j`; empty where the
    meter knows only the sum."""

    @property
    def mean_w(self) -> float | None:
        """Mean power over the window; None for an empty window."""
        return self.energy_j / self.duration_s if self.duration_s > 0 else None


class Meter(Protocol):
    """Measures the energy of one window after another."""

    def start(self) -> None:
        """Begin a window; one that is still open is thrown away."""
        ...

    def stop(self) -> Reading | None:
        """End the window. None where there is no sensor, no open window or too few samples: never a guess."""
        ...


class NoMeter:
    """A device that cannot measure."""

    def start(self) -> None:
        """Nothing to begin."""

    def stop(self) -> Reading | None:
        """No reading."""
        return None


def net_of_idle(reading: Reading, idle_w: float) -> Reading:
    """The energy of the work itself, where a meter reads the whole device: less `idle_w` over the window, at
    least 0."""
    return replace(reading, energy_j=max(0.0, reading.energy_j - idle_w * reading.duration_s))
