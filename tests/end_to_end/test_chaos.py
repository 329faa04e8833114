"""The benchmark of chaos in short: server and devices of a federation killed again and again cost it nothing."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from chaos import Found, Kill, counted_wrongly, disturbed, doing, gateway_victims, page, read
from flower_processes import free_ports
from gateway_processes import Fleet
from plain_calls import differs_from_plain

from slimfleet.client.deployed import deployed_device

POINTS = Path(__file__).parents[1] / "simulations"
ROUNDS, KILLS = 6, 4
"""More rounds than so many kills, each after a round's lines at most, can take."""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kills_of_server_and_devices_end_with_the_model_of_plain_calls(tmp_path: Path) -> None:
    task, options = "points:Points", {"alpha": 10.0}  # no package to load, which each start would do
    names, (port,) = ("pi-1", "pi-2"), free_ports(1)
    fleet = Fleet(tmp_path, names, port, task=task, import_from=POINTS, options=options)
    fleet.make_keys()
    victims = gateway_victims(fleet, tmp_path, ROUNDS)
    kills = disturbed(tmp_path, victims, seed=9, kills=KILLS, by_clock=0.0)
    assert len(kills) == KILLS
    assert {"serve"} < {each.victim for each in kills}
    assert counted_wrongly(tmp_path / "out", ROUNDS, len(fleet.names)) == []
    devices = {}
    for number, name in enumerate(fleet.names):
        node = {
            "partition_id": number, "num_partitions": len(fleet.names), "profile": str(tmp_path / "board.json"),
            "state": str(tmp_path / f"plain-{name}"), "meter": "none", "threads": 1,
        }  # fmt: skip
        devices[name] = deployed_device(node, task, options)
    assert (
        differs_from_plain(tmp_path / "federation.toml", tmp_path / "out" / "model.safetensors", devices)
        == ""
    )


def results(out: Path, rows: list[str], outcomes: dict[str, int]) -> Path:
    out.mkdir()
    (out / "rounds.csv").write_text("\n".join(["round,selected,completed", *rows]) + "\n")
    (out / "summary.json").write_text(json.dumps({"outcomes": outcomes}))
    return out


@pytest.mark.parametrize(
    ("rows", "outcomes", "wrong"),
    [
        (["1,2,2", "2,2,2"], {"done": 4, "late": 0}, 0),
        (["1,2,2", "2,2,1"], {"done": 3, "dropped": 1}, 2),
        (["1,2,2", "2,2,2", "2,2,2"], {"done": 4}, 1),
        (["1,2,2", "2,2,2"], {"done": 4, "rejected": 1}, 1),
    ],
)
def test_an_update_that_is_lost_or_counted_twice_is_found(tmp_path: Path, rows, outcomes, wrong: int) -> None:
    assert len(counted_wrongly(results(tmp_path / "out", rows, outcomes), rounds=2, devices=2)) == wrong


def test_what_a_killed_device_was_at_is_read_off_its_log() -> None:
    lines = [
        "the gateway: UNAVAILABLE",
        "plan 7 has come",
        "round 1: 8 of 8 steps, loss 2",
        "plan 7: 0 of 9 bytes of its update are there",
    ]
    said = [doing("\n".join(lines[:count])) for count in range(5)]
    assert said == [
        "starting",
        "waiting for the gateway",
        "at work on a plan",
        "keeping an update",
        "handing an update in, or waiting",
    ]


def test_what_has_been_found_is_read_again_and_told(tmp_path: Path) -> None:
    known = [Found([Kill("serve", 1.5, "step 0"), Kill("pi-1", 2.5, "starting")], 60.0, "")]
    path = tmp_path / "found.json"
    assert read(path) == []
    path.write_text(json.dumps([asdict(each) for each in known]))
    assert read(path) == known
    assert "Killed: pi-1 1 times, serve 1 times." in page(known)
    assert "| 0 | 60 s | 2 | the same |" in page(known)
    assert "| another model |" in page([Found(known[0].kills, 60.0, "another model")])
