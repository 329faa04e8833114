"""slimfleet.simulations: virtual fleets in virtual time, on this process or on Ray, and what they come to."""

from slimfleet.simulations.fleet import FleetSettings, VirtualDevice, build_fleet
from slimfleet.simulations.outcome import DeviceRow, RunRecord
from slimfleet.simulations.scenario import load_scenario
from slimfleet.simulations.settings import Scenario
from slimfleet.simulations.simulate import simulate
from slimfleet.simulations.summary import summarise

__all__ = [
    "DeviceRow",
    "FleetSettings",
    "RunRecord",
    "Scenario",
    "VirtualDevice",
    "build_fleet",
    "load_scenario",
    "simulate",
    "summarise",
]
