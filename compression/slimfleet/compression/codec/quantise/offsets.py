"""Centring: offsets that move levels to the means of what they stand for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.codec.quantise.grid import FRACTION

MOST_EXPLICIT = 8
"""Levels that get an offset of their own, at most; those above share one."""


def mean_offsets(
    counts: NDArray[np.float64], sums: NDArray[np.float64], top: int, explicit: int
) -> tuple[int, ...]:
    """Distances of the means from the levels 1..`top`, in 1/256 steps: `explicit` of them, then one for the rest.

    `counts` and `sums`, by level: how many values fell on it, and the sum of their magnitudes in steps.
    """
    excess = sums - counts * np.arange(counts.size)
    pooled = [(excess[k], counts[k]) for k in range(1, explicit + 1)]
    if top > explicit:
        pooled.append((excess[explicit + 1 :].sum(), counts[explicit + 1 :].sum()))
    means = [FRACTION * total / count if count else 0.0 for total, count in pooled]
    return tuple(int(np.clip(round(mean), 1 - FRACTION, 2**15 - 1)) for mean in means)
