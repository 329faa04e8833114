"""The fleet: how its devices are called, their keys, and what they are to learn."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from board import BOARD

from slimfleet.coordinator.pki import PkiFolder

SETTINGS = """rounds = {rounds}
round_timeout_s = 1800.0
task = {{name = "digits"}}
gateway = {{port = {port}, wait_s = 0.1, out = "out", connections_per_address = {connections}}}
client = {{learning_rate = 0.05}}
selection = {{policy = "uniform", per_round = {devices}, min_devices = {devices}}}
planner = {{widths = [1.0], local_steps = [4], batch_sizes = [4], nmse = [0.05]}}
"""


def settings(devices: int, rounds: int, port: int) -> str:
    """federation.toml: every device takes part in every round."""
    return SETTINGS.format(devices=devices, rounds=rounds, port=port, connections=2 * devices + 10)


def prepare(folder: Path, devices: int) -> None:
    """Make the keys of all, and the profile that they share."""
    pki = PkiFolder(folder / "pki")
    pki.init("crowd", 10)
    pki.add_server(["127.0.0.1"], 10)
    for number in range(devices):
        pki.add_device(name_of(number), 10)
    (folder / "board.json").write_text(json.dumps(asdict(BOARD)))
    (folder / "fleet.json").write_text(json.dumps(devices))


def fleet_of(folder: Path) -> int:
    """How many devices there are."""
    count: int = json.loads((folder / "fleet.json").read_text())
    return count


def name_of(number: int) -> str:
    """Of a device."""
    return f"board-{number:03}"
