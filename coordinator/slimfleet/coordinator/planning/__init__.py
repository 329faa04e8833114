"""Planning: from a profile, a budget and past reports to what a device does in one round."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from slimfleet.coordinator.planning.enumerating import EnumeratingPlanner
from slimfleet.coordinator.planning.fixed import FixedPlanner
from slimfleet.coordinator.planning.history import History
from slimfleet.coordinator.planning.policy import Planner
from slimfleet.coordinator.planning.settings import PlannerSettings

POLICIES: Mapping[str, Callable[[PlannerSettings], Planner]] = MappingProxyType(
    {
        "enumerate": EnumeratingPlanner,
        "fixed": FixedPlanner,
    }
)
"""Planner policies by the name a scenario gives them. A new one is one file and one line here."""

__all__ = ["POLICIES", "EnumeratingPlanner", "FixedPlanner", "History", "Planner", "PlannerSettings"]
