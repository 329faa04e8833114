"""Successive halving: many sub-networks train a little, the best third of them three times as long, and so on.

Jamieson and Talwalkar 2016, arXiv 1502.07943, figure 3, with thirds for halves (Li et al. 2018, arXiv 1603.06560).
"""

from __future__ import annotations

import time
from dataclasses import replace
from math import ceil, log

import numpy as np
from torch import nn

from slimfleet.compression.model.architectures.judging import ANCHORS, Judge, Scored, best_of
from slimfleet.compression.model.architectures.replacing import taught
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.training.tuning import Tuning, tune

__all__ = ["halved"]

KEPT = 3
"""One of so many stays in each round."""

DRAWN = 10
"""So many are drawn, for each trial, to find one that keeps to the limits."""


def halved(
    judge: Judge, original: nn.Module, trials: int, tuning: Tuning, until: float
) -> tuple[SlimModel, Scored, list[Scored], int]:
    """The best model and its marks, the last marks of all that raced, and the steps of training.

    Raises BadInput where none keeps to the limits. No training begins after `until` on `time.monotonic`'s clock.
    """
    runners = _starters(judge, original, trials, until)
    tried, racing = (
        {n: marks for n, (_, marks) in runners.items()},
        {n: slim for n, (slim, _) in runners.items()},
    )
    central, steps = taught(original, judge.central), 0
    for left in range(ceil(log(len(racing), KEPT) - 1e-9), 0, -1):
        short = replace(tuning, epochs=tuning.epochs / KEPT**left)
        for number in racing:
            if time.monotonic() < until:
                what = f"search: {len(racing)} left"
                racing[number], done = tune(racing[number], central, short, what)
                tried[number] = judge.scored(racing[number], tried[number].choice)
                steps += done.steps
        ranked = sorted(racing, key=lambda number: (not tried[number].keeps, tried[number].evaluation.loss))
        racing = {number: racing[number] for number in ranked[: max(len(racing) // KEPT, 1)]}
    best = best_of([tried[number] for number in racing])
    winner = next(slim for number, slim in racing.items() if tried[number] is best)
    return winner, best, list(tried.values()), steps


def _starters(
    judge: Judge, original: nn.Module, trials: int, until: float
) -> dict[int, tuple[SlimModel, Scored]]:
    """Random sub-networks that keep to the limits, as many as there are trials, or what is found of them in time; where
    there is none, the nearest."""
    rng, seen = np.random.default_rng([judge.central.seed, 17]), set[tuple[int, ...]]()
    found: dict[int, tuple[SlimModel, Scored]] = {}
    nearest: tuple[SlimModel, Scored] | None = None
    for turn in range(DRAWN * trials):
        choice = judge.space.level(turn / (ANCHORS - 1)) if turn < ANCHORS else judge.space.drawn(rng)
        if (key := tuple(choice.values())) in seen:
            continue
        seen.add(key)
        small = judge.made(original, choice)
        marks = judge.scored(small, choice)
        if marks.keeps:
            found[turn] = small, marks
        elif nearest is None or max(marks.over) < max(nearest[1].over):
            nearest = small, marks
        if len(found) == trials or time.monotonic() > until:
            break
    return found or ({0: nearest} if nearest else {})
