"""Planning for the baseline: the same full-width, uncompressed round for every device, whatever its budget."""

from __future__ import annotations

from math import ceil

from slimfleet.compression.cost import CostModel
from slimfleet.compression.types import Budget, DeviceProfile, Plan, Skip
from slimfleet.coordinator.planning.policy import History
from slimfleet.coordinator.settings import PlannerSettings


class FixedPlanner:
    """Federated averaging (McMahan et al. 2017): one local epoch of the whole model, float32 updates."""

    def __init__(self, settings: PlannerSettings) -> None:
        self.settings = settings

    def plan(
        self, profile: DeviceProfile, budget: Budget, cost_model: CostModel, history: History
    ) -> Plan | Skip:
        """Always the same plan; a baseline shows what it costs to ignore budgets."""
        batch_size = self.settings.batch_sizes[0]
        return Plan(
            width=1.0,
            local_steps=max(ceil(self.settings.max_epochs * history.examples / batch_size), 1),
            batch_size=batch_size,
            nmse=0.0,
            reason="fixed: one epoch in float32",
        )
