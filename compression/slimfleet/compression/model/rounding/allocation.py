"""Allocation of bits: which tensor gets how many of a budget, by what each loses with few."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

__all__ = ["allocated"]


def allocated(
    sizes: Mapping[str, int], losses: Mapping[str, Mapping[int, float]], budget: int
) -> dict[str, int]:
    """Name -> bits of a weight, so that all together take at most `budget` bits and lose least.

    `sizes`: name -> weights; `losses`: name -> bits -> loss where this tensor alone has so few. Losses are taken to add
    up, and to fall with bits: what noise there is against it is taken out. Bits go in the order of loss saved per bit
    spent along the convex hull of each tensor, which solves the Lagrangian relaxation of the choice (Shoham and Gersho
    1988, doi 10.1109/29.90373); of a step that does not fit, as much is taken as does. Where equal bits for all lose
    less, all have equal bits. Every tensor has the fewest bits that were tried, even where that is over budget.
    """
    chosen = {name: min(each) for name, each in losses.items()}
    spent = sum(sizes[name] * bits for name, bits in chosen.items())
    steps = [
        (-(loss - less) / ((more - bits) * sizes[name]), name, bits, more)
        for name, each in losses.items()
        for (bits, loss), (more, less) in pairwise(_hull(_falling(each)))
    ]
    for _, name, bits, more in sorted(steps):
        if chosen[name] == bits:
            fit = [
                b for b in losses[name] if bits <= b <= more and spent + (b - bits) * sizes[name] <= budget
            ]
            chosen[name] = max(fit, default=bits)
            spent += (chosen[name] - bits) * sizes[name]
    alike = {name: _most(each, budget // sum(sizes.values())) for name, each in losses.items()}
    return min(chosen, alike, key=lambda bits: sum(losses[name][b] for name, b in bits.items()))


def _most(tried: Mapping[int, float], bits: int) -> int:
    """The largest number that was tried and is at most `bits`; the least where all are larger."""
    return max((b for b in tried if b <= bits), default=min(tried))


def _falling(losses: Mapping[int, float]) -> list[tuple[int, float]]:
    """The points with each loss at least that of every larger number of bits."""
    falling: list[tuple[int, float]] = []
    for bits in sorted(losses, reverse=True):
        falling.append((bits, max(losses[bits], falling[-1][1] if falling else losses[bits])))
    return falling[::-1]


def _hull(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """The lower convex hull of points in order."""
    hull: list[tuple[int, float]] = []
    for point in points:
        while len(hull) >= 2 and _slope(hull[-2], hull[-1]) >= _slope(hull[-2], point):
            hull.pop()
        hull.append(point)
    return hull


def _slope(one: tuple[int, float], other: tuple[int, float]) -> float:
    return (other[1] - one[1]) / (other[0] - one[0])
