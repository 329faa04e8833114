"""slimfleet.simulations: virtual fleets in virtual time, in this process or on Ray, and what they come to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slimfleet.compression.lazy import lazy_exports

if TYPE_CHECKING:
    from slimfleet.coordinator.reporting.outcome import DeviceRow, RunRecord
    from slimfleet.coordinator.reporting.summary import summarise
    from slimfleet.simulations.fleet import VirtualDevice
    from slimfleet.simulations.in_process import InProcess
    from slimfleet.simulations.population import build_fleet
    from slimfleet.simulations.run import simulate
    from slimfleet.simulations.scenario import load_scenario
    from slimfleet.simulations.settings import FleetSettings, RunSettings, Scenario, TaskSettings
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "DeviceRow": "slimfleet.coordinator.reporting.outcome",
            "FleetSettings": "slimfleet.simulations.settings",
            "InProcess": "slimfleet.simulations.in_process",
            "RunRecord": "slimfleet.coordinator.reporting.outcome",
            "RunSettings": "slimfleet.simulations.settings",
            "Scenario": "slimfleet.simulations.settings",
            "TaskSettings": "slimfleet.simulations.settings",
            "VirtualDevice": "slimfleet.simulations.fleet",
            "build_fleet": "slimfleet.simulations.population",
            "load_scenario": "slimfleet.simulations.scenario",
            "simulate": "slimfleet.simulations.run",
            "summarise": "slimfleet.coordinator.reporting.summary",
        },
    )

__all__ = [
    "DeviceRow",
    "FleetSettings",
    "InProcess",
    "RunRecord",
    "RunSettings",
    "Scenario",
    "TaskSettings",
    "VirtualDevice",
    "build_fleet",
    "load_scenario",
    "simulate",
    "summarise",
]
