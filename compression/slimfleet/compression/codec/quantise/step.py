"""Step and offsets of a grid, as the encoder chooses them. A decoder never needs to agree with any of this."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.codec.quantise.grid import FRACTION

MOST_EXPLICIT = 8
"""Levels that get an offset of their own, at most; those above share one."""
_CANDIDATES = 12
_FINEST = 1 / 8
"""The finest candidate step, as a share of the one that clips nothing."""


def deadzone_step(
    values: NDArray[np.float32], largest: float, levels: int, rounding: float, sparse: bool
) -> float:
    """The step of least squared error when `levels` levels are each reconstructed at their mean.

    `values`: magnitudes (n,), zeros included; `largest`: the greatest that must not be clipped, unless that
    pays. With `sparse`, the step is never finer than what makes the smallest kept value the edge of its
    deadzone: the sparsifier has set the precision, and finer levels would buy little for their bytes.
    """
    ordered = np.sort(values[values > 0] if sparse else values).astype(np.float64)
    coarsest = largest / levels
    finest = max(coarsest * _FINEST, float(ordered[0]) / (1 - rounding) if sparse else 0.0)
    if finest >= coarsest:
        return finest
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    candidates = np.geomspace(finest, coarsest, _CANDIDATES)
    gains = [_explained(ordered, sums, step, levels, rounding, sparse) for step in candidates]
    return float(candidates[int(np.argmax(gains))])


def _explained(
    ordered: NDArray[np.float64],
    sums: NDArray[np.float64],
    step: float,
    levels: int,
    rounding: float,
    sparse: bool,
) -> float:
    """Energy kept by reconstructing levels at their means: the sum of (sum of values)^2 / count."""
    edges = (np.arange(1, levels + 1) - rounding) * step
    if sparse:
        edges[0] = 0.0
    starts = np.concatenate([np.searchsorted(ordered, edges), [ordered.size]])
    counts = np.diff(starts)
    totals = np.diff(sums[starts])
    return float(np.sum(totals**2 / np.maximum(counts, 1)))


def stochastic_step(values: NDArray[np.float32], largest: float, levels: int, sparsity: float) -> float:
    """The finest step that clips nothing and rounds an expected share `sparsity` of `values` to zero."""
    finest = largest / levels * (1 + 1e-6)
    ordered = np.sort(values).astype(np.float64)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])

    def expected_zeros(step: float) -> float:
        below = int(np.searchsorted(ordered, step))
        return float(below - sums[below] / step)

    coarsest = finest
    while expected_zeros(coarsest) < sparsity * ordered.size:
        coarsest *= 2
    for _ in range(30):
        middle = (finest + coarsest) / 2
        if expected_zeros(middle) < sparsity * ordered.size:
            finest = middle
        else:
            coarsest = middle
    return coarsest


def mean_offsets(
    counts: Sequence[float], beyond: Sequence[float], top: int, explicit: int
) -> tuple[int, ...]:
    """Distances of the means from the levels 1..`top`, in 1/256 steps: `explicit` of them, then one for the rest.

    `counts` and `beyond`, by level: how many values fell on it, and how far their magnitudes lie beyond it in sum, in
    steps.
    """
    pooled = [(beyond[k], counts[k]) for k in range(1, explicit + 1)]
    if top > explicit:
        pooled.append((sum(beyond[explicit + 1 :]), sum(counts[explicit + 1 :])))
    means = [FRACTION * total / count if count else 0.0 for total, count in pooled]
    return tuple(min(max(round(mean), 1 - FRACTION), 2**15 - 1) for mean in map(float, means))
