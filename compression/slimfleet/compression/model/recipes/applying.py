"""Applying a recipe: its techniques in order, the model measured before and after each."""

from __future__ import annotations

import time
from dataclasses import dataclass

from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.evaluation.measuring import Measured, measured
from slimfleet.compression.model.recipes.recipe import Recipe, Step
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.technique import TechniqueReport
from slimfleet.compression.model.toolbox import TECHNIQUES
from slimfleet.compression.types import DeviceProfile

__all__ = ["Applied", "applied"]


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
    slim: SlimModel,
    central: CentralTask,
    recipe: Recipe,
    before: Measured,
    profile: DeviceProfile | None = None,
) -> tuple[SlimModel, tuple[Applied, ...]]:
    """The model that a recipe makes of `slim`, which stays as it is and measures `before`, and what each step did."""
    now, done = slim, []
    for step in recipe.steps:
        began = time.perf_counter()
        now, report = TECHNIQUES[step.technique].apply(now, central, step.settings)
        after = measured(now, central, profile)
        done.append(Applied(step, report, before, after, time.perf_counter() - began))
        before = after
    return now, tuple(done)
