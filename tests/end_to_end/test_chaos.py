"""The benchmark of chaos in short: server and devices of a federation killed again and again cost it nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos import counted_wrongly, disturbed, gateway_victims
from flower_processes import free_ports
from gateway_processes import Fleet
from plain_calls import differs_from_plain

from slimfleet.client.deployed import deployed_device

ROUNDS, KILLS = 6, 4
"""More rounds than so many kills, each after a round's lines at most, can take."""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kills_of_server_and_devices_end_with_the_model_of_plain_calls(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, ("pi-1", "pi-2"), free_ports(1)[0])
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
        devices[name] = deployed_device(node, "digits", {})
    assert (
        differs_from_plain(tmp_path / "federation.toml", tmp_path / "out" / "model.safetensors", devices)
        == ""
    )
