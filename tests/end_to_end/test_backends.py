"""The same rounds in this process and on Ray: same bytes, and lost or hanging devices harm nobody else."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import ray
from flwr.app import Message

from slimfleet.coordinator import Coordinator
from slimfleet.coordinator.transport.flower.app import server_app
from slimfleet.simulations import Scenario, build_fleet, load_scenario, simulate
from slimfleet.simulations.grids.client_app import virtual_client_app
from slimfleet.simulations.grids.flower import SERVER_NODE, EngineGrid, context_of
from slimfleet.simulations.grids.ray import RayEngine
from slimfleet.simulations.wiring import coordinator_settings, fleet_settings, task_of
from slimfleet.simulations.world import VirtualWorld, node_of

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
    other = simulate(scenario.model_copy(update={"seed": 1}), tmp_path / "other")[0]
    assert (tmp_path / "other" / "model.safetensors").read_bytes() != models[0]
    assert other.seed == 1


class KillsAnActor:
    """An engine that loses its first actor as soon as the first answers of the second round are in."""

    def __init__(self, engine: RayEngine) -> None:
        self.engine = engine
        self.submissions = 0
        self.killed = False

    def submit(self, messages: Sequence[Message]) -> None:
        self.submissions += 1
        self.engine.submit(messages)

    def collect(self, timeout_s: float) -> list[Message]:
        answers = self.engine.collect(timeout_s)
        if answers and self.submissions == 3 and not self.killed:  # the first submission registers
            ray.kill(self.engine.workers[0])
            self.killed = True
        return answers

    def close(self) -> None:
        self.engine.close()


def test_an_actor_killed_in_mid_round_costs_one_device_and_not_the_round(tmp_path: Path) -> None:
    scenario = digits(fleet__dropout="0.0")
    fleet = build_fleet(fleet_settings(scenario), scenario.seed)
    coordinator = Coordinator(task_of(scenario), coordinator_settings(scenario), VirtualWorld(fleet, None))
    make_app = partial(virtual_client_app, scenario, tmp_path)
    engine = KillsAnActor(RayEngine(make_app, workers=2, device_timeout_s=60))
    try:
        grid = EngineGrid([node_of(device.number) for device in fleet], engine)
        server_app(lambda _: coordinator)(grid=grid, context=context_of(SERVER_NODE, {}))
    finally:
        engine.close()
    assert engine.killed
    assert [row.completed for row in coordinator.rows] == [8, 7, 8]
    assert coordinator.totals.failed == {"worker": 1}


def test_a_device_that_hangs_is_given_up_and_the_others_are_heard(tmp_path: Path) -> None:
    scenario = digits(
        rounds="1",
        fleet__dropout="0.0",
        fleet__availability="1.0",
        fleet__devices="20",
        selection__per_round="20",
        selection__battery_floor="0.0",
        fleet__faults="{ hang = 0.05 }",
        run__device_timeout_s="4.0",
    )
    record, _ = simulate(scenario, tmp_path / "out", backend="ray")
    assert record.failed == {"timeout": 1}
    assert record.rows[0].completed == record.rows[0].selected - 1
