"""Heat: a device that has trained for long slows down to what its case can shed, and recovers at rest.

One lumped heat capacity under Newton's law of cooling. Heat is told as the power that would hold it, in watts. The
limit is the profile's `sustained_w` (compression/profiles.csv, with its source); a device without one never slows down.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, log

__all__ = ["Case", "heat_after"]


def heat_after(heat_w: float, power_w: float, seconds: float, constant_s: float) -> float:
    """Heat after so many seconds at a power."""
    return power_w + (heat_w - power_w) * exp(-seconds / constant_s)


@dataclass(slots=True)
class Case:
    """The heat of one device at work."""

    heat_w: float
    sustained_w: float = inf
    constant_s: float = inf
    """Time in which heat falls to 1/e at rest."""

    def work(self, joules: float, power_w: float) -> float:
        """How long it takes to spend so much energy at a power, or at what the case sheds once it is hot, s."""
        if power_w <= self.sustained_w:
            seconds = joules / power_w
            self.heat_w = heat_after(self.heat_w, power_w, seconds, self.constant_s)
            return seconds
        cool_s = 0.0
        if self.heat_w < self.sustained_w:
            cool_s = self.constant_s * log((power_w - self.heat_w) / (power_w - self.sustained_w))
        fast_s = min(joules / power_w, cool_s)
        self.heat_w = heat_after(self.heat_w, power_w, fast_s, self.constant_s)
        slow_s = (joules - power_w * fast_s) / self.sustained_w
        self.heat_w = heat_after(self.heat_w, self.sustained_w, slow_s, self.constant_s)
        return fast_s + max(slow_s, 0.0)
