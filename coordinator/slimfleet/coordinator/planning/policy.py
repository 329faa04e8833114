"""The planner seam."""

from __future__ import annotations

from typing import Protocol

from slimfleet.compression.cost import CostModel
from slimfleet.compression.types import Budget, DeviceProfile, Plan, Skip
from slimfleet.coordinator.planning.history import History


class Planner(Protocol):
    """Decides what one device does in one round."""

    def plan(
        self, profile: DeviceProfile, budget: Budget, cost_model: CostModel, history: History
    ) -> Plan | Skip:
        """A plan that keeps `budget`, or the constraint that no plan can keep.

        `budget` is final: what the user set, what the battery has left and what the memory has free are
        already merged. `cost_model.works` has an entry for every width that the planner may choose.
        """
        ...
