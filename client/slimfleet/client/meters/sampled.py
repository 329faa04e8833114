"""Sampled meter: one meter over every sensor that can be looked at again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import hypot
from typing import Generic, TypeVar

from slimfleet.client.meters.protocol import Reading
from slimfleet.client.meters.sampling import Sampler, Window, bridged, sample_in_thread

__all__ = ["FEWEST_SAMPLES", "SampledMeter", "Sensor", "all_known", "trapezoid"]

FEWEST_SAMPLES = 10
"""With fewer there is no reading."""

T = TypeVar("T")
Trace = list[tuple[float, float]]


def trapezoid(earlier_w: float, later_w: float, seconds: float) -> float:
    """Joules between two samples of power, which changed evenly."""
    return seconds * (earlier_w + later_w) / 2


def all_known(values: Iterable[T | None]) -> list[T] | None:
    """The values; None where one of them is missing: a sum without it would be too low."""
    found = list(values)
    known = [value for value in found if value is not None]
    return known if len(known) == len(found) else None


@dataclass(frozen=True, slots=True)
class Sensor(Generic[T]):
    """A sensor as it was found when a window opened."""

    name: str
    """What it is and what it reads, for people."""
    look: Callable[[], T | None]
    """Its value now; None where it has none."""
    joules: Callable[[T, T, float], float | None]
    """Energy between two of its values that are so many seconds apart; None where they cannot be told."""
    error: float
    """How far a reading of it may be off, as a share of the energy."""
    bridged_s: float = 1.0
    """The longest stretch between two samples in which others may have had no value. With 0 every one must have one."""


class SampledMeter(Generic[T]):
    """Energy between the first and the last of the samples of a sensor, taken `rate_hz` times a second.

    It reads what the sensor reads, idle power included (see `net_of_idle`). `find` looks for the sensor when a window
    opens. There is no reading without a sensor, with fewer than ten samples, or where the sensor had no value for
    longer than it allows: a rail that vanishes leaves none. The uncertainty is the sensor's error, and, where power
    changed between two samples, half the change for half the time, as independent errors.
    """

    def __init__(
        self,
        find: Callable[[], Sensor[T] | None],
        rate_hz: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        sampler: Sampler = sample_in_thread,
    ) -> None:
        self._find, self._interval_s, self._clock, self._sampler = find, 1.0 / rate_hz, clock, sampler
        self._open: tuple[Sensor[T], Window[T]] | None = None

    def start(self) -> None:
        """Look for the sensor, and begin a window with a first sample."""
        self.stop()
        sensor = self._find()
        if sensor is not None:
            self._open = sensor, Window(sensor.look, self._interval_s, self._clock, self._sampler)
            self._counted: Trace = []
            self._last: tuple[float, T] | None = None
            self._place = 0

    def so_far(self) -> float | None:
        """Joules since the start, at the power of the last two samples since the last; None before there are two."""
        if self._open is None:
            return None
        sensor, window = self._open
        # What was counted before stays counted: this is asked after every step.
        for moment, value in window.looks[self._place :]:
            self._place += 1
            if value is None:
                continue
            joules = (
                0.0 if self._last is None else sensor.joules(self._last[1], value, moment - self._last[0])
            )
            if joules is None:
                return None
            before = self._counted[-1][1] if self._counted else 0.0
            self._counted, self._last = [*self._counted[-1:], (moment, before + joules)], (moment, value)
        if len(self._counted) < 2:
            return None
        (t0, e0), (t1, e1) = self._counted
        return e1 + (e1 - e0) / (t1 - t0) * (self._clock() - t1) if t1 > t0 else e1

    def stop(self) -> Reading | None:
        """End the window with a last sample; None unless there is a sensor, whose samples allow a reading."""
        if self._open is None:
            return None
        (sensor, window), self._open = self._open, None
        points = bridged(window.close(), sensor.bridged_s)
        if points is None or len(points) < FEWEST_SAMPLES:
            return None
        parts = all_known(
            sensor.joules(p, q, later - earlier) for (earlier, p), (later, q) in pairwise(points)
        )
        if parts is None:
            return None
        times = [moment for moment, _ in points]
        trace = tuple(zip(times, accumulate(parts, initial=0.0), strict=True))
        energy_j, duration_s = trace[-1][1], times[-1] - times[0]
        doubt_j = sensor.error * energy_j + _between_samples(times, parts)
        return Reading(energy_j, duration_s, "measured", len(points), sensor.name, doubt_j, trace)


def _between_samples(times: Sequence[float], joules: Sequence[float]) -> float:
    """How far the energy may be off since power changed between samples: joules."""
    lengths = [later - earlier for earlier, later in pairwise(times)]
    watts = [part / length if length else 0.0 for part, length in zip(joules, lengths, strict=True)]
    steps = [abs(later - earlier) / 2 for earlier, later in pairwise(watts)]
    return hypot(*(step * length / 2 for step, length in zip(steps, lengths[1:], strict=True)))
