"""Power supply: a meter on the battery's own gauge, whose power is sampled in the background and integrated."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import accumulate, pairwise
from pathlib import Path

from slimfleet.client.meters.battery import POWER_SUPPLY, read_batteries
from slimfleet.client.meters.protocol import Reading
from slimfleet.client.meters.sampling import Sampler, open_window, sample_in_thread

FEWEST_SAMPLES = 10


class PowerSupplyMeter:
    """Energy that the batteries gave, by the trapezoid rule over `rate_hz` samples of their power a second.

    It reads the whole device, idle power included (see `net_of_idle`). There is no reading where, at any moment of the
    window, a battery charges, is full or does not report its state, since its power is then not that of the device; nor
    with fewer than ten samples.
    """

    def __init__(
        self,
        root: Path = POWER_SUPPLY,
        rate_hz: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        sampler: Sampler = sample_in_thread,
    ) -> None:
        self._root, self._interval_s, self._clock, self._sampler = root, 1.0 / rate_hz, clock, sampler
        self._close: Callable[[], list[tuple[float, float]] | None] | None = None

    def start(self) -> None:
        """Begin a window with a first sample."""
        self.stop()
        root = self._root
        self._close = open_window(lambda: discharge_w(root), self._interval_s, self._clock, self._sampler)

    def stop(self) -> Reading | None:
        """End the window with a last sample; None unless every sample has a value and there are ten."""
        if self._close is None:
            return None
        close, self._close = self._close, None
        points = close()
        if points is None or len(points) < FEWEST_SAMPLES:
            return None
        parts = [(later - earlier) * (p + q) / 2 for (earlier, p), (later, q) in pairwise(points)]
        times = [moment for moment, _ in points]
        trace = tuple(zip(times, accumulate(parts, initial=0.0), strict=True))
        return Reading(trace[-1][1], times[-1] - times[0], "measured", len(points), trace)


def discharge_w(root: Path = POWER_SUPPLY) -> float | None:
    """Watts that all batteries together give; None unless there is one, and each discharges and reports its power."""
    watts = [battery.power_w if battery.discharging else None for battery in read_batteries(root)]
    known = [power for power in watts if power is not None]
    return sum(known) if known and len(known) == len(watts) else None
