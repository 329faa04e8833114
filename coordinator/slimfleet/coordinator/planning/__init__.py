"""Planning: which devices take part in a round, and what each does, given its profile, budget and past reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from slimfleet.coordinator.planning.candidates import Candidate
from slimfleet.coordinator.planning.enumerating import EnumeratingPlanner
from slimfleet.coordinator.planning.policy import FixedPlanner, History, Planner, Request, Sizes
from slimfleet.coordinator.settings import PlannerSettings

PLANNERS: Mapping[str, Callable[[PlannerSettings], Planner]] = MappingProxyType(
    {
        "enumerate": EnumeratingPlanner,
        "fixed": FixedPlanner,
    }
)
"""Planner policies by the name that `planner.policy` gives them. A new one is one file and one line here."""

__all__ = [
    "PLANNERS",
    "Candidate",
    "EnumeratingPlanner",
    "FixedPlanner",
    "History",
    "Planner",
    "Request",
    "Sizes",
]
