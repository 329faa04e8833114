"""slimfleet.coordinator: plans, checks, aggregates, calibrates, checkpoints and exports; knows no device code."""

from slimfleet.coordinator.coordinator import Coordinator
from slimfleet.coordinator.environment import Environment, Participation, Status, WallEnvironment
from slimfleet.coordinator.learning.outcome import RoundRow
from slimfleet.coordinator.settings import CoordinatorSettings

__all__ = [
    "Coordinator",
    "CoordinatorSettings",
    "Environment",
    "Participation",
    "RoundRow",
    "Status",
    "WallEnvironment",
]
