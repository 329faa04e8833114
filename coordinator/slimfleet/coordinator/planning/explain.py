"""What the coordinator would ask of some devices, and why: its own first round, opened and not sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slimfleet.compression import Budget, Cost, DeviceProfile, Plan, Skip, Task
from slimfleet.coordinator.coordinator import Coordinator
from slimfleet.coordinator.environment import WallEnvironment
from slimfleet.coordinator.planning.selection import SelectionSettings
from slimfleet.coordinator.planning.settings import Bits
from slimfleet.coordinator.settings import CoordinatorSettings


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one device would be asked to do."""

    profile: DeviceProfile
    choice: Plan | Skip
    predicted: Cost | None
    """Of the plan, by the nominal profile and without the planner's margins; None for a Skip."""


def explain(
    task: Task,
    profiles: Sequence[DeviceProfile],
    budget: Budget,
    examples: int,
    *,
    runtime: str = "torch",
    downlink_bits: Bits = 6,
) -> list[Explanation]:
    """Plans for devices that the coordinator has not met before, each with so many local `examples`.

    It is the planner's first guess: reports of later rounds correct the prediction and narrow its margins.
    """
    everybody = SelectionSettings(policy="uniform", per_round=len(profiles))
    settings = CoordinatorSettings(
        rounds=1, budget=budget, selection=everybody, runtime=runtime, downlink_bits=downlink_bits
    )
    coordinator = Coordinator(task, settings, WallEnvironment())
    for node, profile in enumerate(profiles):
        coordinator.register(node, profile, examples)
    opened = coordinator.open_round(range(len(profiles)))
    planned = {d.node: (d.assignment.plan, d.predicted) for d in opened.dispatches}
    skipped = {node: (skip, None) for node, skip in opened.skipped.items()}
    outcomes = planned | skipped
    return [Explanation(profile, *outcomes[node]) for node, profile in enumerate(profiles)]
