"""A planner for a fleet of all kinds: the plan of a device follows from its class alone, so that it can be repeated."""

from __future__ import annotations

from slimfleet.compression import Budget, DeviceProfile, Plan
from slimfleet.compression.cost import CostModel
from slimfleet.coordinator import PlannerSettings
from slimfleet.coordinator.planning import History

WHOLE_SHARE = 1_000
"""A batch of more examples than a device has: all of them in every step, in whatever order."""


class ByClass:
    """Classes are called `class-N`; a device of another class trains on its whole share, and sends float32."""

    def __init__(self, settings: PlannerSettings) -> None:
        self.widths = settings.widths

    def plan(self, profile: DeviceProfile, budget: Budget, cost_model: CostModel, history: History) -> Plan:
        """Another one for each class."""
        word, _, number = profile.device_class.partition("-")
        if word != "class":
            return Plan(width=0.5, local_steps=4, batch_size=WHOLE_SHARE, nmse=0.0, reason="its whole share")
        n = int(number)
        return Plan(
            width=self.widths[n % len(self.widths)],
            local_steps=4 + n,
            batch_size=(8, 16)[n % 2],
            nmse=(0.02, 0.05, 0.1)[n % 3],
            reason=f"class {n}",
        )
