"""What a codec with no target of its own costs at a target: sweep its settings, interpolate on the lower envelope."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Point:
    """What one setting of a codec does to one update."""

    nmse: float
    bytes: int
    setting: Any


def envelope(points: Iterable[Point]) -> list[Point]:
    """The points that no other beats in error and size, by growing error: sizes fall."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.nmse, p.bytes)):
        if not best or point.bytes < best[-1].bytes:
            best.append(point)
    return best


def bytes_at(points: Iterable[Point], target: float) -> float | None:
    """Size at exactly `target`, log-log between the two points of the envelope around it.

    None when the points do not enclose the target.
    """
    for low, high in pairwise(envelope(points)):
        if low.nmse <= target <= high.nmse:
            share = np.log(target / low.nmse) / np.log(high.nmse / low.nmse)
            return float(np.exp((1 - share) * np.log(low.bytes) + share * np.log(high.bytes)))
    return None


def nearest(points: Sequence[Point], target: float) -> Point:
    """The point of the envelope nearest to `target` in log error."""
    return min(envelope(points), key=lambda p: abs(np.log(p.nmse / target)))
