"""Applying a recipe: its techniques in order, the model measured before and after each."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.measuring import Measured
from slimfleet.compression.model.recipe import Recipe, Step
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.technique import TechniqueReport
from slimfleet.compression.model.toolbox import TECHNIQUES

__all__ = ["Applied", "Measure", "applied"]

Measure = Callable[[SlimModel], Measured]


@dataclass(frozen=True, slots=True)
class Applied:
    """One step of a recipe, done."""

    step: Step
    report: TechniqueReport
    before: Measured
    after: Measured
    seconds: float
    """Wall time."""


def applied(
    slim: SlimModel, central: CentralTask, recipe: Recipe, measure: Measure
) -> tuple[SlimModel, tuple[Applied, ...]]:
    """The model that a recipe makes of `slim`, which stays as it is, and what each step did."""
    now, before, done = slim, measure(slim), []
    for step in recipe.steps:
        began = time.perf_counter()
        now, report = TECHNIQUES[step.technique].apply(now, central, step.settings)
        after = measure(now)
        done.append(Applied(step, report, before, after, time.perf_counter() - began))
        before = after
    return now, tuple(done)
