"""Moments of a device's rounds: when its plans arrived, and when training began after each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["marks", "waits"]


def waits(arrived: Sequence[float], begun: Sequence[float]) -> list[float]:
    """Seconds from each arrival to the first step after it and before the next arrival.

    Raises ValueError where one has none.
    """
    found = []
    for number, moment in enumerate(arrived):
        next_one = arrived[number + 1] if number + 1 < len(arrived) else float("inf")
        step = min((each for each in begun if moment <= each < next_one), default=None)
        if step is None:
            raise ValueError(f"nothing was trained after the plan that arrived at {moment}")
        found.append(step - moment)
    return found


def marks(path: Path) -> list[float]:
    """The moments in a file, one a line, in seconds since 1970."""
    return [float(line) for line in path.read_text().split()]
