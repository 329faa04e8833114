"""Schedules: how a share that is to be removed is reached over the steps of fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

__all__ = ["Schedule", "shares"]

Schedule = Literal["one-shot", "iterative", "gradual"]
"""All at once, then fine-tuning; in equal ratios of what is left, fine-tuning between (Han et al. 2015, arXiv
1506.02626); a cubic rise over the first half of fine-tuning (Zhu and Gupta 2017, arXiv 1710.01878, eq. 1)."""

STAGES = {"one-shot": 1, "iterative": 5, "gradual": 20}


def shares(schedule: Schedule, goal: float, begin: float = 0.0) -> Iterator[float]:
    """The share removed at each stage, from above `begin` to `goal`."""
    stages = STAGES[schedule]
    for stage in range(1, stages + 1):
        done = stage / stages
        if stage == stages:
            yield goal
        elif schedule == "gradual":
            yield goal + (begin - goal) * (1 - done) ** 3
        else:
            yield 1 - (1 - begin) * ((1 - goal) / (1 - begin)) ** done
