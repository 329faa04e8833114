"""Memory: R0, c and k of the cost model, fitted to the peaks of real rounds, each in a process of its own."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from slimfleet.client.calibration.point import Peak
from slimfleet.compression.cost import PARAMETER_COPIES, Runtime

__all__ = ["MemoryFit", "fitted", "plans_to_measure"]

LARGEST_ACTIVATIONS_BYTES = 48e6
LEAST_SPAN_BYTES = 8e6
"""Activations that differ by less do not show k beside the noise of a process, some MB."""

LARGEST_BATCH = 1_024
SMALLEST_BATCH = 8


@dataclass(frozen=True, slots=True)
class MemoryFit:
    """The memory model of this device."""

    runtime: Runtime
    factor_measured: bool
    """Whether the activations differed enough to show k; otherwise it is that of the table."""
    worst_error: float
    """The largest |predicted / measured - 1| of the rounds that it was fitted to."""


def plans_to_measure(activation_bytes: float, examples: int, room_bytes: float) -> list[tuple[float, int]]:
    """(width, batch) of the rounds that a fit rests on.

    `activation_bytes` are those of an example at full width, `examples` what the device has, `room_bytes` what it may
    spend on activations.
    """
    most = min(LARGEST_ACTIVATIONS_BYTES, room_bytes) / max(activation_bytes, 1.0)
    large = max(min(int(max(most, 0.0)), examples, LARGEST_BATCH), 1)
    small = min(SMALLEST_BATCH, large)
    batches = sorted({small, round(sqrt(small * large)), large})
    return [(1.0, batch) for batch in batches] + [(0.5, batch) for batch in {small, large}]


def fitted(peaks: Sequence[Peak], usual: Runtime) -> MemoryFit:
    """R0, c and k by least squares; where the activations hardly differ k is that of `usual`."""
    import numpy as np

    base = statistics.median(peak.base_bytes for peak in peaks)
    actual = np.array([peak.peak_bytes for peak in peaks], np.float64)
    kept = base + PARAMETER_COPIES * np.array([peak.parameter_bytes for peak in peaks])
    activations = np.array([peak.activation_bytes for peak in peaks])
    shows = bool(np.ptp(activations) >= LEAST_SPAN_BYTES)
    slope = np.polyfit(activations, actual - kept, 1)[0] if shows else usual.activation_factor
    factor = max(float(slope), 0.0)
    fixed = max(float(np.mean(actual - kept - factor * activations)), 0.0)
    predicted = kept + fixed + factor * activations
    runtime = Runtime(usual.name, round(base), round(fixed), factor)
    return MemoryFit(runtime, shows, float(np.max(np.abs(predicted / actual - 1))))
