"""Explanations: the first round that the coordinator would plan for some devices, and why; nothing is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slimfleet.compression import Cost, DeviceProfile, Plan, Skip, Task
from slimfleet.coordinator.coordinator import Coordinator
from slimfleet.coordinator.environment import WallEnvironment
from slimfleet.coordinator.settings import CoordinatorSettings


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one device would do, and why."""

    profile: DeviceProfile
    choice: Plan | Skip
    predicted: Cost | None
    """Of the plan, by the nominal profile and without the planner's margins; None for a Skip."""


def explain(
    task: Task, profiles: Sequence[DeviceProfile], settings: CoordinatorSettings, examples: int
) -> list[Explanation]:
    """Plans for devices unknown to the coordinator, each with so many local `examples`.

    It is the planner's first guess: reports of later rounds correct the prediction and narrow its margins.
    """
    coordinator = Coordinator(task, settings, WallEnvironment())
    for node, profile in enumerate(profiles):
        coordinator.state.registry.register(node, profile, examples)
    planned = coordinator.plan(0.0, len(profiles))
    plans = {d.node: (d.assignment.plan, d.predicted) for d in planned.dispatches}
    outcomes = plans | {node: (skip, None) for node, skip in planned.skipped.items()}
    return [Explanation(profile, *outcomes[node]) for node, profile in enumerate(profiles)]
