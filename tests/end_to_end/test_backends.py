"""The same rounds in this process and on Ray: same bytes, and lost or hanging devices do not disturb the others."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import ray

from slimfleet.coordinator import Coordinator, Event, Planned
from slimfleet.coordinator.transport.flower import run
from slimfleet.simulations import Scenario, build_fleet, load_scenario, simulate
from slimfleet.simulations.grids.flower import EngineGrid, fleet_app
from slimfleet.simulations.grids.ray import RayEngine
from slimfleet.simulations.scenario import build_task_of
from slimfleet.simulations.world import VirtualWorld, node_of

OWN_TASK = Path(__file__).parents[2] / "docs" / "examples" / "own_task"

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_running")]


def digits(**overrides: str) -> Scenario:
    small = {"rounds": "3", "fleet.devices": "30", "selection.per_round": "8", "run.workers": "2"}
    return load_scenario(
        "digits", small | {key.replace("__", "."): value for key, value in overrides.items()}
    )


def test_the_same_seed_gives_the_same_model_bytes_on_both_backends(tmp_path: Path) -> None:
    scenario = digits(planner__widths="[1.0, 0.5]", budget__uplink_bytes="1500")
    for backend in ("local", "ray"):
        simulate(scenario, tmp_path / backend, backend=backend)
    models = [(tmp_path / backend / "model.safetensors").read_bytes() for backend in ("local", "ray")]
    assert models[0] == models[1]
    another = replace(scenario, coordinator=replace(scenario.coordinator, seed=1))
    other = simulate(another, tmp_path / "other")[0]
    assert (tmp_path / "other" / "model.safetensors").read_bytes() != models[0]
    assert other.seed == 1


def test_a_cohort_gives_the_same_model_bytes_on_both_backends(tmp_path: Path) -> None:
    scenario = digits(rounds="2", run__engine="cohort", planner__widths="[1.0, 0.5]")
    local, spread = (
        simulate(scenario, tmp_path / backend, backend=backend)[0] for backend in ("local", "ray")
    )
    models = [(tmp_path / backend / "model.safetensors").read_bytes() for backend in ("local", "ray")]
    assert models[0] == models[1]
    assert local.rows[-1].completed == spread.rows[-1].completed > 0


def test_workers_find_the_task_of_an_example_and_learn_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray was started before the import path was widened here, so its workers must widen their own."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    shutil.copytree(OWN_TASK, tmp_path / "task", ignore=shutil.ignore_patterns("__pycache__"))
    short = {"rounds": "1", "selection.per_round": "3", "planner.local_steps": "[2]", "run.workers": "1"}
    scenario = load_scenario(str(tmp_path / "task" / "scenario.toml"), short)
    local, spread = (
        simulate(scenario, tmp_path / backend, backend=backend)[0] for backend in ("local", "ray")
    )
    models = [(tmp_path / backend / "model.safetensors").read_bytes() for backend in ("local", "ray")]
    assert models[0] == models[1]
    assert local.rows[0].completed == spread.rows[0].completed > 0


class KillsAnActor:
    """Observer that kills the engine's first actor as soon as the work of the second round is given out."""

    def __init__(self, engine: RayEngine) -> None:
        self.engine = engine
        self.killed = False

    def __call__(self, event: Event) -> None:
        if isinstance(event, Planned) and event.round_number == 2:
            ray.kill(self.engine.workers[0])
            self.killed = True


def test_an_actor_killed_in_mid_round_costs_one_device_and_not_the_round(tmp_path: Path) -> None:
    scenario = digits(fleet__dropout="0.0")
    fleet = build_fleet(scenario.fleet, scenario.coordinator.seed)
    coordinator = Coordinator(build_task_of(scenario), scenario.coordinator, VirtualWorld(fleet))
    engine = RayEngine(partial(fleet_app, scenario, tmp_path), workers=2, device_timeout_s=60)
    killer = KillsAnActor(engine)
    try:
        grid = EngineGrid([node_of(device.number) for device in fleet], engine)
        run(coordinator, grid, None, [killer], everyone=True)
    finally:
        engine.close()
    assert killer.killed
    assert [row.completed for row in coordinator.state.rows] == [8, 7, 8]
    assert coordinator.state.totals.failed == {"worker": 1}


def test_a_device_that_hangs_is_given_up_and_the_others_are_heard(tmp_path: Path) -> None:
    scenario = digits(
        rounds="1",
        fleet__dropout="0.0",
        fleet__availability="1.0",
        fleet__devices="8",
        selection__per_round="8",
        selection__battery_floor="0.0",
        fleet__faults="{ hang = 0.125 }",
        # Waited for once. An honest device needs less, also as the first in a fresh actor on a busy machine.
        run__device_timeout_s="30.0",
    )
    record, _ = simulate(scenario, tmp_path / "out", backend="ray")
    assert record.failed == {"timeout": 1}
    assert record.rows[0].completed == record.rows[0].selected - 1
