"""Planning: from a profile, a budget and past reports to what a device does in one round."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from slimfleet.coordinator.planner.enumerate import EnumeratingPlanner
from slimfleet.coordinator.planner.fixed import FixedPlanner
from slimfleet.coordinator.planner.history import History
from slimfleet.coordinator.planner.protocol import Planner
from slimfleet.coordinator.planner.settings import PlannerSettings

POLICIES: Mapping[str, Callable[[PlannerSettings], Planner]] = MappingProxyType(
    {
        "enumerate": EnumeratingPlanner,
        "fixed": FixedPlanner,
    }
)
"""Planner policies by the name a scenario gives them. A new one is one file and one line here."""

__all__ = ["POLICIES", "EnumeratingPlanner", "FixedPlanner", "History", "Planner", "PlannerSettings"]
