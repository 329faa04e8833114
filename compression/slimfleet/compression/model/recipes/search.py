"""Search: which of the recipes that meet the targets loses least, within a time.

Successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943): every candidate trains briefly, the better third
trains three times as long, until one is left, which gets a third of the time for itself. A journal keeps what was
tried.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, inf, log
from typing import Any

from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.evaluation.measuring import Measured
from slimfleet.compression.model.recipes.applying import Applied, applied
from slimfleet.compression.model.recipes.candidates import Candidate, candidates
from slimfleet.compression.model.recipes.first_look import first_look
from slimfleet.compression.model.recipes.journal import Journal
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.target import Target
from slimfleet.compression.model.technique import Plot
from slimfleet.compression.model.training.tuning import Tuner, Tuning
from slimfleet.compression.types import DeviceProfile

__all__ = ["Found", "excess_of", "merit", "searched"]

KEPT = 3
"""One in so many candidates goes on, and trains so many times as long."""

MOST_EPOCHS, LEAST_EPOCHS = 60.0, 0.5
"""Of one recipe: more hardly help, fewer tell nothing."""

TUNING = ", optimizer=adamw, learning_rate=0.001, soft_labels=0.7"

TIMED_STEPS = 5

LOOKING = 0.1
"""Share of the time that sensitivity may take, on top of it."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search ended with."""

    slim: SlimModel
    steps: tuple[Applied, ...]
    sensitivity: Mapping[str, Plot] = field(default_factory=dict)
    """What was looked at first, by title; empty where nothing was searched for."""
    tried: Mapping[str, Measured] = field(default_factory=dict)
    """Recipe -> what came out of it, on validation data."""


def searched(
    slim: SlimModel,
    central: CentralTask,
    targets: Sequence[Target],
    before: Measured,
    minutes: float,
    journal: Journal,
    profile: DeviceProfile | None = None,
) -> Found:
    """The best model found in about so many minutes of training, once it is known what fits the targets.

    How sensitive each tensor is comes first, and goes into the journal.
    """
    if journal.sensitivity is None:
        journal.looked(first_look(slim, central, LOOKING * minutes * 60))
    if journal.plan is None:
        fitting = candidates(slim, central, targets, before, profile)
        journal.settle(_plan(fitting, _epoch_s(slim, central), minutes))
    assert journal.plan is not None
    left = [Candidate(tuple(parts)) for parts in journal.plan["candidates"]]
    epochs: float = journal.plan["epochs"]
    while len(left) > 1:
        for candidate in left:
            recipe = candidate.recipe(epochs, TUNING)
            if str(recipe) not in journal.tried:
                _, steps = applied(slim, central, recipe, before, profile)
                journal.done(str(recipe), steps[-1].after)
        outcomes = {each: journal.tried[str(each.recipe(epochs, TUNING))] for each in left}
        left = sorted(left, key=lambda each: merit(outcomes[each], targets, before), reverse=True)
        left, epochs = left[: ceil(len(left) / KEPT)], min(KEPT * epochs, MOST_EPOCHS)
    made, steps = applied(slim, central, left[0].recipe(epochs, TUNING), before, profile)
    return Found(made, steps, journal.sensitivity or {}, dict(journal.tried))


def excess_of(after: Measured, targets: Sequence[Target], before: Measured) -> float:
    """How many times the largest limit a model has; at most 1 where all targets are met."""
    return max((target.excess(target.of(after), before) for target in targets), default=0.0)


def merit(after: Measured, targets: Sequence[Target], before: Measured) -> tuple[float, float, float]:
    """What is better is larger: targets met first, then accuracy, then the loss."""
    accuracy = -inf if after.accuracy is None else after.accuracy
    return -max(excess_of(after, targets, before), 1.0), accuracy, -after.loss


def _plan(fitting: Sequence[Candidate], epoch_s: float, minutes: float) -> dict[str, Any]:
    """The candidates, and the epochs of each in the first round; rounds cost about the same.

    Where time is short, the last candidates, those of the harshest structure, are left out.
    """
    left = list(fitting)
    while True:
        rounds = 1 + ceil(log(len(left), KEPT)) if len(left) > 1 else 1
        epochs = minutes * 60 / (rounds * len(left) * epoch_s)
        if epochs >= LEAST_EPOCHS or len(left) == 1:
            return {"candidates": [each.parts for each in left], "epochs": min(epochs, MOST_EPOCHS)}
        left = left[:-1]


def _epoch_s(slim: SlimModel, central: CentralTask) -> float:
    """Wall time of an epoch, from a few steps."""
    tuner = Tuner(slim, central, Tuning(epochs=1.0), "timing")
    tuner.run(1)
    began = time.perf_counter()
    steps = tuner.done
    tuner.run(TIMED_STEPS)
    return (time.perf_counter() - began) / max(tuner.done - steps, 1) * tuner.epoch
