"""slimfleet.coordinator: plans, sends, checks, learns, checkpoints and reports; knows no device code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slimfleet.compression.lazy import lazy_exports

if TYPE_CHECKING:
    from slimfleet.coordinator.checkpoint import restore_checkpoint, save_checkpoint
    from slimfleet.coordinator.coordinator import Coordinator
    from slimfleet.coordinator.environment import Environment, WallEnvironment
    from slimfleet.coordinator.learning.row import RoundRow
    from slimfleet.coordinator.observing.events import Closed, Event, Observer, Planned, Saved, Waiting
    from slimfleet.coordinator.receiving.answer import Answer
    from slimfleet.coordinator.sending.dispatch import Dispatch
    from slimfleet.coordinator.settings import (
        CoordinatorSettings,
        PlannerSettings,
        SelectionSettings,
        ServerSettings,
        read_settings,
    )
    from slimfleet.coordinator.state import State
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "Answer": "slimfleet.coordinator.receiving.answer",
            "Closed": "slimfleet.coordinator.observing.events",
            "Coordinator": "slimfleet.coordinator.coordinator",
            "CoordinatorSettings": "slimfleet.coordinator.settings",
            "Dispatch": "slimfleet.coordinator.sending.dispatch",
            "Environment": "slimfleet.coordinator.environment",
            "Event": "slimfleet.coordinator.observing.events",
            "Observer": "slimfleet.coordinator.observing.events",
            "Planned": "slimfleet.coordinator.observing.events",
            "PlannerSettings": "slimfleet.coordinator.settings",
            "RoundRow": "slimfleet.coordinator.learning.row",
            "Saved": "slimfleet.coordinator.observing.events",
            "SelectionSettings": "slimfleet.coordinator.settings",
            "ServerSettings": "slimfleet.coordinator.settings",
            "State": "slimfleet.coordinator.state",
            "Waiting": "slimfleet.coordinator.observing.events",
            "WallEnvironment": "slimfleet.coordinator.environment",
            "read_settings": "slimfleet.coordinator.settings",
            "restore_checkpoint": "slimfleet.coordinator.checkpoint",
            "save_checkpoint": "slimfleet.coordinator.checkpoint",
        },
    )

__all__ = [
    "Answer",
    "Closed",
    "Coordinator",
    "CoordinatorSettings",
    "Dispatch",
    "Environment",
    "Event",
    "Observer",
    "Planned",
    "PlannerSettings",
    "RoundRow",
    "Saved",
    "SelectionSettings",
    "ServerSettings",
    "State",
    "Waiting",
    "WallEnvironment",
    "read_settings",
    "restore_checkpoint",
    "save_checkpoint",
]
