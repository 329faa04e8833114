"""How a coordinator runs a federation, as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Gt, Le

from slimfleet.compression import Budget, Training
from slimfleet.compression.pruning import WindowPolicy
from slimfleet.compression.types import Count, Positive, Preset
from slimfleet.coordinator.learning.server_optimizer import ServerSettings
from slimfleet.coordinator.planning import PlannerSettings
from slimfleet.coordinator.planning.selection import SelectionSettings
from slimfleet.coordinator.planning.settings import Bits


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorSettings:
    """Everything a federation is run by, apart from its task and its devices."""

    rounds: Annotated[int, Ge(1)]
    seed: Count = 0
    training: Training = field(default_factory=lambda: Training(learning_rate=0.05))
    learning_rate_decay: Annotated[float, Gt(0), Le(1)] = 1.0
    """Factor on the devices' learning rate from round to round."""
    budget: Budget = field(default_factory=Budget)
    class_budgets: Mapping[str, Budget] = field(default_factory=dict)
    """Budgets of the device classes that have one of their own."""
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    planner: str = "enumerate"
    planner_settings: PlannerSettings = field(default_factory=PlannerSettings)
    window: WindowPolicy = "prefix"
    codec_preset: Preset = "small"
    """Of updates and models: `small` takes the fewest bytes, `fast` the least time, `portable` does without the native
    coder. Who cannot code so codes in the portable profile."""
    downlink_bits: Bits = 6
    downlink_history: Annotated[int, Ge(0)] = 32
    """Published models kept, so that a device that holds one is sent the change since; 0 always sends whole models."""
    server: ServerSettings = field(default_factory=ServerSettings)
    runtime: str = "torch"
    """Which memory model the devices' training runtime follows."""
    evaluate_every: Annotated[int, Ge(1)] = 1
    round_timeout_s: Positive = 600.0
    """Longest wait for the answers of one round, in wall-clock time."""

    def budget_of(self, device_class: str) -> Budget:
        """The budget of a device of this class."""
        return self.class_budgets.get(device_class, self.budget)
