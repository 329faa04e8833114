"""Charge counter: a meter for long windows, on the fall of the battery's own energy or charge counter."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path

from slimfleet.client.meters.battery import POWER_SUPPLY, BatteryStatus, read_batteries
from slimfleet.client.meters.protocol import Reading
from slimfleet.client.meters.sampling import Sampler, Window, bridged, sample_in_thread

FEWEST_STEPS = 10


class ChargeCounterMeter:
    """Energy that one battery gave, by its `energy_now`, or its `charge_now` times the voltage.

    Counters move in steps of unknown size, so there is a reading only after at least ten steps: its error is then at
    most about a tenth. This meter suits drivers without a usable power or current, and windows of minutes. There is no
    reading with several batteries, or while the battery charges, is full or does not report its state.
    """

    def __init__(
        self,
        root: Path = POWER_SUPPLY,
        rate_hz: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        sampler: Sampler = sample_in_thread,
    ) -> None:
        self._root, self._interval_s, self._clock, self._sampler = root, 1.0 / rate_hz, clock, sampler
        self._window: Window[BatteryStatus] | None = None

    def start(self) -> None:
        """Begin a window with a first sample of the counter."""
        self.stop()
        self._window = Window(partial(_discharging, self._root), self._interval_s, self._clock, self._sampler)

    def so_far(self) -> float | None:
        """Nothing: between two of its steps a counter tells nothing."""
        return None

    def stop(self) -> Reading | None:
        """End the window with a last sample; None unless the counter took ten steps, all of them down."""
        if self._window is None:
            return None
        window, self._window = self._window, None
        looks = bridged(window.close(), longest_s=0.0)
        if looks is None:
            return None
        falls = [_fall_j(earlier, later) for (_, earlier), (_, later) in pairwise(looks)]
        steps = [joules for joules in falls if joules is not None and joules != 0.0]
        if None in falls or len(steps) < FEWEST_STEPS or min(steps) < 0:
            return None
        moved = [moment for (moment, _), joules in zip(looks[1:], falls, strict=True) if joules]
        begin, end = looks[0][0], looks[-1][0]
        # Between two steps of the counter nothing is known but that the energy was spent.
        trace = tuple(zip([begin, *moved], accumulate(steps, initial=0.0), strict=True))
        if moved[-1] < end:
            trace += ((end, trace[-1][1]),)
        energy_j = trace[-1][1]
        sensor = f"charge counter of {looks[0][1].name}"
        return Reading(energy_j, end - begin, "measured", len(steps), sensor, energy_j / len(steps), trace)


def _discharging(root: Path) -> BatteryStatus | None:
    batteries = read_batteries(root)
    return batteries[0] if len(batteries) == 1 and batteries[0].discharging else None


def _fall_j(earlier: BatteryStatus, later: BatteryStatus) -> float | None:
    """Joules given between two samples; None where neither counter has a value."""
    if earlier.stored_j is not None and later.stored_j is not None:
        return earlier.stored_j - later.stored_j
    if earlier.charge_c is None or later.charge_c is None:
        return None
    if earlier.voltage_v is None or later.voltage_v is None:
        return None
    return (earlier.charge_c - later.charge_c) * (earlier.voltage_v + later.voltage_v) / 2
