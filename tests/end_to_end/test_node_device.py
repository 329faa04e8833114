"""A gateway, a Python device and a Node.js device on loopback over mutual TLS: two rounds, both counted done."""

from __future__ import annotations

import csv
import json
import queue
import re
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
from board import BOARD
from node_client import CLIENT, node
from relay import Relay

from slimfleet.client.anatomy import anatomy
from slimfleet.client.deployed import deployed_device
from slimfleet.client.gateway.described import Described, resident
from slimfleet.compression.edge.task_loader import load_task
from slimfleet.compression.messages import text_of
from slimfleet.compression.pruning.blueprint import blueprint
from slimfleet.coordinator.gateway import Gateway, read_served, serve
from slimfleet.coordinator.pki import PkiFolder

OPTIONS = {"partitions": 2, "alpha": 10.0}
SETTINGS = """rounds = 2
evaluate_every = 2
round_timeout_s = 200.0
task = {{name = "{task}", options = {{partitions = 2, alpha = 10.0}}}}
gateway = {{port = 0, hold_s = 0.5, wait_s = 0.05, out = "out"}}
client = {{learning_rate = 0.05}}
selection = {{policy = "uniform", per_round = 2, min_devices = 2}}
planner = {{widths = [{width}], local_steps = [4], batch_sizes = [8], nmse = [{nmse}]}}
"""


@contextmanager
def python_device(folder: Path, task: str, port: int) -> Iterator[None]:
    """The client as `slimfleet-device run` has it, in a thread."""
    node_config = {
        "partition_id": 0, "num_partitions": 2, "profile": str(folder / "board.json"), "state": str(folder / "state"),
        "meter": "none", "threads": 1,
    }  # fmt: skip
    described = Described(
        node=node_config,
        task=task,
        options=OPTIONS,
        import_from=(),
        gateway=f"127.0.0.1:{port}",
        keys=str(folder / "pki" / "devices" / "python"),
    )
    registration = text_of(deployed_device(node_config, task, OPTIONS).registration())
    device, is_over = resident(described, registration), threading.Event()

    def live() -> None:
        while not is_over.is_set():
            device.turn()

    thread = threading.Thread(target=live, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(30)
        assert not thread.is_alive()


def describe(folder: Path, task: str) -> None:
    """What the Node.js device is given: its model as `slimfleet-device inspect --json` prints it, and its examples."""
    loaded = load_task(task, {}, partitions=2, seed=0, options=OPTIONS)
    found = anatomy(task, blueprint(loaded, seed=0), (), "torch", 8)
    (folder / "model.json").write_text(json.dumps(found))
    examples = loaded.load(1)
    data = {"inputs": examples.inputs.tolist(), "targets": examples.targets.tolist()}
    (folder / "data.json").write_text(json.dumps(data))


@contextmanager
def node_device(folder: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    keys = folder / "pki" / "devices" / "node"
    command = [
        node(), CLIENT / "device.js", "--gateway", f"127.0.0.1:{port}", "--keys", keys,
        "--model", folder / "model.json", "--data", folder / "data.json", "--profile", folder / "board.json",
        "--rounds", "2",
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def train(
    folder: Path, task: str, width: float, nmse: float, cut_at: int | None
) -> tuple[list[dict], str, Relay]:
    """Two rounds; the rows of rounds.csv, what the Node.js device said, and the relay that it called through."""
    node()
    keys = PkiFolder(folder / "pki")
    keys.init("test", 10)
    keys.add_server(["127.0.0.1"], 10)
    for name in ("python", "node"):
        keys.add_device(name, 10)
    (folder / "board.json").write_text(json.dumps(asdict(BOARD)))
    describe(folder, task)
    settings = folder / "federation.toml"
    settings.write_text(SETTINGS.format(task=task, width=width, nmse=nmse))
    served, gateways = read_served(settings), queue.SimpleQueue[Gateway]()
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(1))
        run = pool.submit(serve, served, listening=gateways.put)
        port = gateways.get(timeout=60).port
        relay = Relay(port, pause_s=0.01)
        stack.callback(relay.close)
        if cut_at is not None:
            for direction in ("down", "up"):
                relay.allow(direction, cut_at)
        stack.enter_context(python_device(folder, task, port))
        process = stack.enter_context(node_device(folder, relay.port))
        _, said = process.communicate(timeout=240)
        assert process.returncode == 0, said
        run.result(timeout=60)
    with (folder / "out" / "rounds.csv").open() as file:
        return list(csv.DictReader(file)), said, relay


@pytest.mark.slow
def test_a_node_device_trains_beside_a_python_device(tmp_path: Path) -> None:
    """Models come under the contexts of the native coder, narrower than the full one; the second as a change."""
    rows, said, _ = train(tmp_path, "points:Points", width=0.5, nmse=0.05, cut_at=None)
    assert [(row["completed"], row["rejected"], row["failed"]) for row in rows] == [("2", "0", "0")] * 2
    assert re.findall(r"^round \d", said, re.MULTILINE) == ["round 1", "round 2"]
    # The second model took fewer bytes than a whole one: the Node.js device held the first.
    assert float(rows[1]["downlink_bytes"]) < float(rows[0]["downlink_bytes"])
    assert (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.slow
def test_a_node_device_that_is_cut_off_in_both_directions_goes_on_where_it_was(tmp_path: Path) -> None:
    rows, said, relay = train(tmp_path, "broad_points:Broad", width=1.0, nmse=0.0, cut_at=100_000)
    assert [(row["completed"], row["rejected"], row["failed"]) for row in rows] == [("2", "0", "0")] * 2
    assert relay.cuts == 2
    assert said.count("the gateway: ") == 2
    each = 4 * (2 * 200 + 200 + 200 * 200 + 200 + 200 * 2 + 2)
    # Twice each way, and not once more for a cut.
    for direction in ("down", "up"):
        assert 2 * each < relay.passed[direction] < 2.6 * each
