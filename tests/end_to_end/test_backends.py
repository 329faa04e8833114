"""The same rounds in this process and on Ray: same bytes, and lost or hanging devices do not disturb the others."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ray_workers import workers_alive

from slimfleet.coordinator import Event, Planned
from slimfleet.simulations import Scenario, load_scenario, simulate

OWN_TASK = Path(__file__).parents[2] / "docs" / "examples" / "own_task"

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_running")]


def digits(**overrides: str) -> Scenario:
    small = {"rounds": "3", "fleet.devices": "30", "selection.per_round": "8", "run.workers": "2"}
    short = {"planner.local_steps": "[2, 4]"}
    return load_scenario(
        "digits", small | short | {key.replace("__", "."): value for key, value in overrides.items()}
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


MODES = {
    "waiting": {},
    "asynchronous": {"pacing__mode": "asynchronous", "pacing__buffer": "4", "pacing__concurrency": "8"},
}


@pytest.mark.parametrize("mode", MODES)
def test_a_worker_killed_in_every_round_costs_nothing(mode: str, tmp_path: Path) -> None:
    """With 30% dropouts: every participation is accounted for, and the weights are those of an undisturbed run."""
    scenario = digits(rounds="2", fleet__dropout="0.3", **MODES[mode])
    killed = []

    def kill(event: Event) -> None:
        if isinstance(event, Planned) and event.round_number not in killed and event.dispatches:
            os.kill(workers_alive()[0], signal.SIGKILL)
            killed.append(event.round_number)

    whole, _ = simulate(scenario, tmp_path / "whole")
    disturbed, _ = simulate(scenario, tmp_path / "disturbed", backend="ray", observers=[kill])
    assert killed == [1, 2]
    assert disturbed.failed == whole.failed
    assert "worker" not in disturbed.failed, "no work is lost"
    assert [(row.selected, row.completed) for row in disturbed.rows] == [
        (row.selected, row.completed) for row in whole.rows
    ]
    models = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("whole", "disturbed")]
    assert models[0] == models[1]


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
        run__device_timeout_s="20.0",
    )
    record, _ = simulate(scenario, tmp_path / "out", backend="ray")
    assert record.failed == {"timeout": 1}
    assert record.rows[0].completed == record.rows[0].selected - 1
