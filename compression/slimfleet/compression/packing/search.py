"""Search for steps: the coarsest that keep errors, or the finest that keep a size, many of them at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Made = TypeVar("Made")

TRIES = 10
"""Most trials of one search; it mostly takes four."""
CLOSE = 0.97
"""A search ends when every value is at this share of its bound or more."""
_AIM = 0.985
"""Share of the bound that a trial is made for."""


def meet(
    trial: Callable[[Numbers], tuple[Numbers, Made]],
    bounds: Numbers,
    first: Numbers,
    least: Numbers,
    slope: float,
    close: float = CLOSE,
) -> tuple[Numbers, Made] | None:
    """Steps at which no value is above its bound and, where the search finds them, all are close to it.

    `trial` gives the values at steps, each of which decides the value beside it, and what was made there. Values follow
    steps as a power, `slope`, at first, and then as the last two trials say. None where even the `least` steps fail.
    """
    steps = np.maximum(first, least)
    best: tuple[Numbers, Made] | None = None
    nearest = -1.0
    curve = _Curve(slope, np.full(bounds.shape, slope), *np.full((2, *bounds.shape), np.nan))
    for _ in range(TRIES):
        values, made = trial(steps)
        ratio = np.maximum(values, 1e-300) / bounds
        if (ratio <= 1).all() and ratio.min() > nearest:
            best, nearest = (steps, made), float(ratio.min())
        settled = (ratio <= 1) & ((ratio >= close) | (steps <= least))
        if settled.all():
            break
        following = np.maximum(curve.following(steps, ratio), least)
        steps = np.where(settled, steps, following)
    return best


@dataclass(slots=True)
class _Curve:
    """What trials have told about how values follow steps, each by itself."""

    slope: float
    slopes: Numbers
    inside: Numbers
    """The steps nearest to the bound that meet it, and those that do not; NaN before there were any."""
    outside: Numbers
    before: tuple[Numbers, Numbers] | None = None

    def following(self, steps: Numbers, ratio: Numbers) -> Numbers:
        """The steps to try next, after those of `ratio` times the bounds."""
        fits = ratio <= 1
        nearer = np.fmax if self.slope > 0 else np.fmin
        farther = np.fmin if self.slope > 0 else np.fmax
        self.inside = np.where(fits, nearer(self.inside, steps), self.inside)
        self.outside = np.where(fits, self.outside, farther(self.outside, steps))
        self._learn(steps, ratio)
        following = steps * np.exp(np.clip(np.log(_AIM / ratio) / self.slopes, -1.5, 1.5))
        # Never beyond what is known to be on the other side.
        low, high = np.fmin(self.inside, self.outside), np.fmax(self.inside, self.outside)
        between = np.where((following > low) & (following < high), following, np.sqrt(low * high))
        return np.where(np.isnan(self.inside) | np.isnan(self.outside), following, between)

    def _learn(self, steps: Numbers, ratio: Numbers) -> None:
        """From the last two trials, if their steps lie apart; within a factor of three of the first guess."""
        if self.before is not None:
            run, rise = np.log(steps / self.before[0]), np.log(ratio / self.before[1])
            apart = np.abs(run) > log(1.002)
            seen = np.where(apart, rise / np.where(apart, run, 1), self.slopes)
            low, high = sorted((self.slope / 3, self.slope * 3))
            self.slopes = np.clip(seen, low, high)
        self.before = (steps, ratio)
