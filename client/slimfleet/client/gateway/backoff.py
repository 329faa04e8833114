"""Backoff: how long a device waits before it tries again, so that a fleet does not come back all at once."""

from __future__ import annotations

import random

__all__ = ["Backoff"]

FIRST_S = 1.0
LONGEST_S = 300.0


class Backoff:
    """Twice as long with every failure in a row, and at random between half of that and all of it."""

    def __init__(self, rng: random.Random, first_s: float = FIRST_S, longest_s: float = LONGEST_S) -> None:
        self._rng, self._first_s, self._longest_s = rng, first_s, longest_s
        self._failures = 0

    def next_s(self) -> float:
        """How long to wait after one more failure, in seconds."""
        # Beyond 2**30 every wait is the longest.
        most_s = min(self._first_s * 2.0 ** min(self._failures, 30), self._longest_s)
        self._failures += 1
        return float(most_s * self._rng.uniform(0.5, 1.0))

    def reset(self) -> None:
        """It worked."""
        self._failures = 0
