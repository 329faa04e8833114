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
    from slimfleet.simulations.sweeps.compare import compare_runs
    from slimfleet.simulations.sweeps.outcomes import Comparison
    from slimfleet.simulations.sweeps.sweep import run_sweep
    from slimfleet.simulations.sweeps.sweep_file import Sweep, load_sweep
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "Comparison": "slimfleet.simulations.sweeps.outcomes",
            "DeviceRow": "slimfleet.coordinator.reporting.outcome",
            "FleetSettings": "slimfleet.simulations.settings",
            "InProcess": "slimfleet.simulations.in_process",
            "RunRecord": "slimfleet.coordinator.reporting.outcome",
            "RunSettings": "slimfleet.simulations.settings",
            "Scenario": "slimfleet.simulations.settings",
            "Sweep": "slimfleet.simulations.sweeps.sweep_file",
            "TaskSettings": "slimfleet.simulations.settings",
            "VirtualDevice": "slimfleet.simulations.fleet",
            "build_fleet": "slimfleet.simulations.population",
            "compare_runs": "slimfleet.simulations.sweeps.compare",
            "load_scenario": "slimfleet.simulations.scenario",
            "load_sweep": "slimfleet.simulations.sweeps.sweep_file",
            "run_sweep": "slimfleet.simulations.sweeps.sweep",
            "simulate": "slimfleet.simulations.run",
            "summarise": "slimfleet.coordinator.reporting.summary",
        },
    )

__all__ = [
    "Comparison",
    "DeviceRow",
    "FleetSettings",
    "InProcess",
    "RunRecord",
    "RunSettings",
    "Scenario",
    "Sweep",
    "TaskSettings",
    "VirtualDevice",
    "build_fleet",
    "compare_runs",
    "load_scenario",
    "load_sweep",
    "run_sweep",
    "simulate",
    "summarise",
]
