"""Quantiles of few values: always one of the values, so that no arithmetic decides."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

import numpy as np
from numpy.typing import NDArray

__all__ = ["median_low", "nearest_rank"]


def nearest_rank(values: Iterable[float], quantile: float) -> float:
    """The least of `values`, one at least, that the share `quantile` (0..1) of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(ceil(quantile * len(ordered)), 1) - 1]


def median_low(values: NDArray[np.integer]) -> int:
    """The lower of the two values in the middle, of one at least."""
    middle = (len(values) - 1) // 2
    return int(np.partition(values, middle)[middle])
