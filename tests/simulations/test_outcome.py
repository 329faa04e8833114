"""What a run comes to: sums that agree, a finished run that is resumed or extended, a deployment."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from flwr.app import Context, RecordDict

from slimfleet.compression import BadInput
from slimfleet.coordinator.settings import tables_of
from slimfleet.coordinator.transport.flower import deployed_server_app
from slimfleet.simulations import Scenario, load_scenario, simulate
from slimfleet.simulations.grids.flower import EngineGrid, fleet_app
from slimfleet.simulations.grids.local import LocalEngine
from slimfleet.simulations.run import resumed_scenario

HERE = Path(__file__).parent
SMALL = {
    "rounds": "3",
    "task.name": "points:Points",
    "task.import_from": json.dumps([str(HERE)]),
    "fleet.devices": "10",
    "selection.per_round": "6",
    "planner.batch_sizes": "[8]",
}


def small(**changes: str) -> Scenario:
    return load_scenario(
        str(HERE / "plain.toml"), SMALL | {k.replace("__", "."): v for k, v in changes.items()}
    )


def summary(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return found


def table(out: Path, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((out / name).read_text().splitlines()))


def test_joules_and_bytes_of_the_devices_are_those_of_the_run(tmp_path: Path) -> None:
    record, _ = simulate(small(fleet__dropout="0.5"), tmp_path)
    assert sum(record.failed.values()) > 2
    for total, key in (
        ("energy_j", "energy_j"),
        ("uplink_bytes", "uplink_bytes"),
        ("downlink_bytes", "downlink_bytes"),
    ):
        devices = math.fsum(float(row[key]) for row in table(tmp_path, "devices.csv"))
        rounds = math.fsum(float(row[key]) for row in table(tmp_path, "rounds.csv"))
        assert devices == pytest.approx(summary(tmp_path)[total], rel=1e-9)
        assert rounds == pytest.approx(devices, rel=1e-9)
    lost = [row for row in record.device_rows if row.failures and not row.participations]
    assert lost
    assert all(row.energy_j > 0 for row in lost)


def test_a_finished_run_that_is_resumed_stays_as_it_is(tmp_path: Path) -> None:
    simulate(small(run__baseline_rounds="3"), tmp_path, baseline=True)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    simulate(resumed_scenario(tmp_path), tmp_path, baseline=True, resume=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_a_finished_run_can_be_given_more_rounds(tmp_path: Path) -> None:
    simulate(small(), tmp_path)
    before = table(tmp_path, "rounds.csv")
    record, _ = simulate(resumed_scenario(tmp_path, 5), tmp_path, resume=True)
    assert len(record.rows) == summary(tmp_path)["rounds"] == 5
    assert table(tmp_path, "rounds.csv")[:3] == before
    assert summary(tmp_path)["wall_time_s"] == pytest.approx(sum(row.wall_time_s for row in record.rows))
    assert resumed_scenario(tmp_path).coordinator.rounds == 5


def test_rounds_that_are_done_cannot_be_taken_back(tmp_path: Path) -> None:
    simulate(small(), tmp_path)
    before = (tmp_path / "scenario.toml").read_bytes()
    with pytest.raises(BadInput, match="has 3 rounds already; give at least 3"):
        simulate(resumed_scenario(tmp_path, 2), tmp_path, resume=True)
    assert (tmp_path / "scenario.toml").read_bytes() == before


def test_nothing_but_the_rounds_may_change(tmp_path: Path) -> None:
    simulate(small(), tmp_path)
    with pytest.raises(BadInput, match=r"seed is 1 .*the run began with"):
        simulate(small(rounds="5", seed="1"), tmp_path, resume=True)


def test_a_deployed_run_leaves_what_a_simulated_one_does(tmp_path: Path) -> None:
    scenario = small(budget__energy_j="5.0", selection__min_devices="10")
    (tmp_path / "federation.toml").write_text(tomli_w.dumps(tables_of(scenario.coordinator)))
    out = tmp_path / "out"
    config: Any = {
        "task.name": "points:Points", "task.alpha": 0.5,
        "server.settings": "federation.toml", "server.out": str(out),
    }  # fmt: skip
    grid = EngineGrid(list(range(1, 11)), LocalEngine(fleet_app(scenario, tmp_path / "devices")))
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict({}), run_config=config)
    deployed_server_app(tmp_path)(grid, context)

    found = summary(out)
    assert (found["backend"], found["rounds"], found["devices"]) == ("deployed", 3, 10)
    assert found["participations"] > 0
    assert found["energy_source"] == "simulated"  # as the devices reported, which here are virtual
    assert len(table(out, "rounds.csv")) == 3
    assert sum(float(row["energy_j"]) for row in table(out, "devices.csv")) == pytest.approx(
        found["energy_j"]
    )
    report = (out / "report.html").read_text()
    assert "energy_j = 5.0" in report
    assert "virtual time" not in report
    assert (out / "model.safetensors").exists()
