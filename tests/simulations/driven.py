"""A scenario driven as `simulate` drives it, in this process and without a report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from slimfleet.client.app import client_app
from slimfleet.coordinator import Coordinator, Observer
from slimfleet.coordinator.transport.flower import run
from slimfleet.simulations import Scenario, build_fleet, load_scenario
from slimfleet.simulations.grids.flower import EngineGrid
from slimfleet.simulations.grids.local import LocalEngine
from slimfleet.simulations.population import enrol
from slimfleet.simulations.scenario import build_task_of
from slimfleet.simulations.virtual_devices import VirtualDevices
from slimfleet.simulations.world import VirtualWorld, node_of

HERE = Path(__file__).parent
PLAIN = HERE / "plain.toml"
"""A scenario that says nothing."""
SMALL = {
    "rounds": "3",
    "task.name": "points:Points",
    "task.import_from": json.dumps([str(HERE)]),
    "fleet.devices": "12",
    "fleet.dropout": "0.0",
    "selection.per_round": "6",
    "planner.batch_sizes": "[8]",
}


def small(**overrides: str) -> Scenario:
    """A small scenario; `__` in a key stands for a dot."""
    return load_scenario(
        str(PLAIN), SMALL | {key.replace("__", "."): value for key, value in overrides.items()}
    )


def coordinator_of(scenario: Scenario) -> Coordinator:
    fleet = build_fleet(scenario.fleet, scenario.coordinator.seed)
    coordinator = Coordinator(build_task_of(scenario), scenario.coordinator, VirtualWorld(fleet))
    enrol(coordinator.state.registry, fleet, coordinator.task)
    return coordinator


def driven(
    scenario: Scenario,
    out: Path | None = None,
    observers: Sequence[Observer] = (),
    devices: Path | None = None,
) -> Coordinator:
    """Run the rounds that are left, with checkpoints in `out` and the devices' state in `devices`, else in memory."""
    coordinator = coordinator_of(scenario)
    fleet = VirtualDevices(scenario, devices)
    app = client_app(lambda context: fleet.device(int(context.node_config["partition-id"])))
    nodes = range(node_of(0), node_of(scenario.fleet.devices))
    run(coordinator, EngineGrid(nodes, LocalEngine(app)), out, observers, everyone=True)
    return coordinator
