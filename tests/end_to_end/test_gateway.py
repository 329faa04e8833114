"""A federation over its own gateway, as processes on loopback: keys, serve, two devices, and a kill in between."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
from board import BOARD
from flower_processes import BIN, PATIENCE_S, end, eventually, free_ports, logs, running
from plain_calls import differs_from_plain

from slimfleet.client.deployed import deployed_device
from slimfleet.client.device import Device

ROUNDS = 30
"""So many that the kill finds some of them yet to come: one takes a twentieth of a second."""

DEVICES = {"pi-1": "grpc", "pi-2": "https"}
"""Name -> how it calls."""

SETTINGS = """rounds = {rounds}
round_timeout_s = 140.0
task = {{name = "digits"}}
gateway = {{port = {port}, hold_s = 2.0, wait_s = 0.1, out = "{out}"}}
client = {{learning_rate = 0.05}}
selection = {{policy = "uniform", per_round = 2, min_devices = 2}}
planner = {{widths = [0.5], local_steps = [4], batch_sizes = [8], nmse = [0.05]}}
codec = {{feedback = false}}
"""
"""There is one plan, and devices keep nothing that a later federation would feel."""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """Keys, and two devices that call a port at which nobody listens yet."""
    (port,) = free_ports(1)
    for arguments in (("init", "pki"), ("server", "pki", "127.0.0.1"), ("device", "pki", *DEVICES)):
        subprocess.run(
            [BIN / "slimfleet-coordinator", "pki", *arguments], cwd=tmp_path, check=True, timeout=60
        )
    (tmp_path / "board.json").write_text(json.dumps(asdict(BOARD)))
    with ExitStack() as stack:
        for number, (name, transport) in enumerate(DEVICES.items()):
            stack.enter_context(
                running(
                    name, tmp_path, "slimfleet-device", "run", "digits", f"--gateway=127.0.0.1:{port}",
                    f"--transport={transport}",
                    f"--keys={tmp_path / 'pki' / 'devices' / name}", f"--profile={tmp_path / 'board.json'}",
                    f"--state={tmp_path / f'state-{name}'}", f"--partition-id={number}", "--meter=none",
                    "--threads=1",
                )
            )  # fmt: skip
        yield tmp_path, port


@contextmanager
def serving(folder: Path, port: int, out: str) -> Iterator[subprocess.Popen[bytes]]:
    settings = folder / f"{out}.toml"
    settings.write_text(SETTINGS.format(rounds=ROUNDS, port=port, out=out))
    with (folder / f"{out}.log").open("ab") as log:
        process = subprocess.Popen(
            [BIN / "slimfleet-coordinator", "serve", settings], stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield process
        finally:
            end(process)


def plain_devices(folder: Path) -> dict[str, Device]:
    """The same devices in this process, which have done nothing yet."""
    devices = {}
    for number, name in enumerate(DEVICES):
        config = {
            "partition_id": number, "profile": str(folder / "board.json"), "state": str(folder / f"plain-{name}"),
            "meter": "none", "threads": 1,
        }  # fmt: skip
        devices[name] = deployed_device(config, "digits", {})
    return devices


def idle_megabytes(folder: Path) -> list[float]:
    """Resident memory of the devices."""
    found = subprocess.run(["ps", "-wweo", "rss,args"], capture_output=True, text=True, check=True).stdout
    own = [line for line in found.splitlines() if "slimfleet-device run" in line and str(folder) in line]
    return [int(line.split()[0]) / 1_024 for line in own]


@pytest.mark.slow
@pytest.mark.timeout(4 * PATIENCE_S)
def test_a_gateway_that_is_killed_in_mid_run_ends_with_the_model_of_plain_calls(
    fleet: tuple[Path, int],
) -> None:
    folder, port = fleet
    eventually(lambda: logs(folder).count("UNAVAILABLE") >= 2, "the devices call", folder)
    if sys.platform == "linux":
        # 56 MB where this was written; torch alone would be 150 more.
        idle = idle_megabytes(folder)
        assert len(idle) == len(DEVICES)
        assert max(idle) < 75
    with serving(folder, port, "killed") as process:
        checkpoints = folder / "killed" / "checkpoint"
        eventually(lambda: any(checkpoints.glob("round-*[1-9]")), "a round is kept", folder)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
    assert not (folder / "killed" / "model.safetensors").exists()
    with serving(folder, port, "killed") as process:
        eventually(lambda: "devices connect" in logs(folder), "it serves again", folder)
        eventually(lambda: process.poll() is not None, "the run ends", folder)
        assert process.returncode == 0, logs(folder)
    published = folder / "killed" / "model.safetensors"
    assert differs_from_plain(folder / "killed.toml", published, plain_devices(folder)) == ""
    with (folder / "killed" / "rounds.csv").open() as file:
        rounds = [(row["round"], row["completed"]) for row in csv.DictReader(file)]
    assert rounds == [(str(number), "2") for number in range(1, ROUNDS + 1)]
