"""Quantiles of few values: always one of the values, so that no arithmetic decides."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

__all__ = ["nearest_rank"]


def nearest_rank(values: Iterable[float], quantile: float) -> float:
    """The least of `values`, one at least, that the share `quantile` (0..1) of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(ceil(quantile * len(ordered)), 1) - 1]
