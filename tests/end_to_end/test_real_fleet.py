"""Real fleets on loopback: SuperNodes with keys behind TLS, and beside them devices at a gateway.

The deployment is that of deploy/flower/README.md; all its devices hold shares of the same handwritten digits.
"""

from __future__ import annotations

import csv
import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from board import BOARD
from flower_processes import PATIENCE_S, eventually, free_ports, logs, running
from flower_tls import HERE, STRANGER, Deployment
from node_client import CLIENT, node
from safetensors.numpy import load_file

from slimfleet.client.anatomy import anatomy
from slimfleet.client.deployed import deployed_device
from slimfleet.compression.edge.task_loader import load_task
from slimfleet.compression.pruning.blueprint import blueprint
from slimfleet.compression.tensors import tensors_of
from slimfleet.coordinator import Coordinator, WallEnvironment
from slimfleet.coordinator.pki.identity import node_of
from slimfleet.coordinator.record import DeviceRecord
from slimfleet.coordinator.state_text import RECORDS
from slimfleet.coordinator.transport.flower.beside import read_with_gateway
from slimfleet.simulations.in_process import InProcess

OWN_SERVER = Path(__file__).parents[2] / "docs" / "examples" / "own_server"

SUPERNODES = ("pi-1", "pi-2", "pi-3", "pi-4")
AT_GATEWAY = ("board-1", "board-2")
NODE_JS = "node-js"
NAMES = (*SUPERNODES, *AT_GATEWAY, NODE_JS)
"""Device i holds share i."""

TASK = "flat_digits:FlatDigits"
OPTIONS = {"alpha": 1.0, "seed": 0}

UPLINK_BYTES = (4_000, 1_200, 900, 600)
"""What each SuperNode may send in a round, by its class."""

FIVE_ROUNDS = """rounds = 5
round_timeout_s = 140.0
client = {learning_rate = 0.05}
selection = {per_round = 2, min_devices = 4}
pacing = {surplus = 1}
planner = {batch_sizes = [8], max_epochs = 1.0}

[budget.class]
""" + "\n".join(f"class-{number} = {{uplink_bytes = {limit}}}" for number, limit in enumerate(UPLINK_BYTES))

MIXED = """rounds = 2
round_timeout_s = 140.0
client = {{learning_rate = 0.05}}
selection = {{policy = "careful.selection:charging_first", per_round = 5, min_devices = 5}}
planner = {{policy = "plans_by_class:ByClass", widths = [1.0, 0.5]}}
server = {{optimizer = "careful.optimizer:nesterov"}}

[gateway]
port = {port}
pki = "app/pki"
hold_s = 2.0
wait_s = 0.1
"""
"""Its policies lie beside the app: a module, and the package of docs/examples/own_server."""


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("fleet")
    modules = ("flat_digits.py", "plans_by_class.py")
    with Deployment(folder, SUPERNODES, modules, shares=len(NAMES)) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def supernodes(deployment: Deployment) -> Iterator[dict[str, ExitStack]]:
    """SuperNodes at work, by name."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(deployment.supernode(name)) for name in SUPERNODES}


def estimated_j(port: int) -> float:
    """Joules that the metrics of a run call estimated; there are no others, since no device has a meter."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except (urllib.error.URLError, ConnectionError):
        return 0.0  # not up yet
    lines = [line for line in text.splitlines() if line.startswith("slimfleet_client_energy_joules_total{")]
    joules = {line: float(line.rsplit(" ", 1)[1]) for line in lines}
    assert sum(value for line, value in joules.items() if 'source="estimated"' not in line) == 0
    return sum(joules.values())


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "rounds.csv").open() as file:
        return list(csv.DictReader(file))


def given(deployment: Deployment) -> dict[str, int]:
    """How often each SuperNode has been given a round."""
    return {name: deployment.log(name).count("Receiving: train") for name in SUPERNODES}


@pytest.mark.slow
@pytest.mark.timeout(4 * PATIENCE_S)
def test_five_rounds_of_known_devices_of_which_one_is_killed(
    deployment: Deployment, supernodes: dict[str, ExitStack]
) -> None:
    folder, out, (port,) = deployment.folder, deployment.folder / "five", free_ports(1)
    with ExitStack() as stack:
        stack.enter_context(deployment.supernode(STRANGER))
        stack.enter_context(deployment.run("five", FIVE_ROUNDS, TASK, port))
        eventually(lambda: "round 1 of 5" in deployment.log("run-five"), "round 1 is over", folder)
        eventually(lambda: estimated_j(port) > 0, "the metrics count estimated joules", folder)
        before = given(deployment)
        eventually(lambda: given(deployment) != before, "a device is in round 2", folder)
        victim = next(name for name, count in given(deployment).items() if count > before[name])
        deployment.kill(victim)
        supernodes[victim].push(deployment.supernode(victim, until=True).__exit__)
        deployment.await_end("five", 5)

    rows = rows_of(out)
    assert [(row["completed"], row["rejected"], row["applied"]) for row in rows] == [
        ("2", "0", "True")
    ] * 5, logs(folder)
    assert float(rows[-1]["accuracy"]) > 0.5  # 0.1 is chance
    devices = {each.profile.name: each for each in registry_of(out)}
    assert sorted(devices) == sorted(SUPERNODES)  # one that comes back is no other device
    assert sum(each.participations for each in devices.values()) == 10
    for name, limit in zip(SUPERNODES, UPLINK_BYTES, strict=True):
        assert devices[name].uplink_bytes <= limit * given(deployment)[name]
        assert devices[name].violations == 0
    assert "SuperNode ID" not in deployment.log(STRANGER)
    assert "Failed to initialize the connection" in deployment.log(STRANGER)


def registry_of(out: Path) -> list[DeviceRecord]:
    """What the coordinator of a run knows of its devices at the end."""
    newest = max((out / "checkpoint").glob("round-*/state.json"))
    found: list[DeviceRecord] = RECORDS.validate_python(json.loads(newest.read_text())["registry"])
    return found


def named_nodes(out: Path) -> dict[str, int]:
    """Device -> the number by which the coordinator knew it."""
    return {each.profile.name: each.node for each in registry_of(out)}


def describe(folder: Path) -> None:
    """What the Node.js device is given: its model as `slimfleet-device inspect --json` prints it, and its examples."""
    task = load_task(TASK, {}, partitions=len(NAMES), seed=0, options=OPTIONS)
    (folder / "model.json").write_text(json.dumps(anatomy(TASK, blueprint(task, seed=0), (), "torch", 8)))
    examples = task.load(NAMES.index(NODE_JS))
    data = {"inputs": examples.inputs.tolist(), "targets": examples.targets.tolist()}
    (folder / "data.json").write_text(json.dumps(data))


@contextmanager
def gateway_device(deployment: Deployment, name: str, port: int) -> Iterator[None]:
    """`slimfleet-device run` at work."""
    folder = deployment.folder
    with running(
        name, folder, "slimfleet-device", "run", TASK, f"--gateway=127.0.0.1:{port}",
        f"--keys={deployment.app / 'pki' / 'devices' / name}", f"--profile={folder / 'etc' / f'{name}.json'}",
        f"--state={folder / name / 'state'}", f"--partition-id={NAMES.index(name)}", f"--num-partitions={len(NAMES)}",
        "--meter=none", "--threads=1", f"--import-from={HERE}",
    ):  # fmt: skip
        yield


def simulated(folder: Path, settings: Path, nodes: dict[str, int]) -> Coordinator:
    """The same federation by plain calls in this process: the same plans for the same devices."""
    chosen, _ = read_with_gateway(settings)
    devices = {}
    for name, number in nodes.items():
        config = {
            "partition_id": NAMES.index(name), "num_partitions": len(NAMES), "meter": "none", "threads": 1,
            "profile": str(folder / "etc" / f"{name}.json"), "state": str(folder / "simulated"),
        }  # fmt: skip
        devices[number] = deployed_device(config, TASK, OPTIONS)
    coordinator = Coordinator(
        load_task(TASK, {}, partitions=1, seed=0, options=OPTIONS), chosen, WallEnvironment()
    )
    federation = InProcess(coordinator, devices)
    for _ in range(chosen.rounds):
        federation.round()
    assert [row.completed for row in coordinator.state.rows] == [len(devices)] * chosen.rounds
    return coordinator


def distance(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """The norm of the difference, relative to that of `one`."""
    assert one.keys() == other.keys()
    gap, size = (sum(float(np.square(x, dtype=np.float64).sum()) for x in tensors) for tensors in (
        [one[name] - other[name] for name in one], one.values()
    ))  # fmt: skip
    return float(np.sqrt(gap / size))


@pytest.mark.slow
@pytest.mark.timeout(4 * PATIENCE_S)
def test_supernodes_gateway_devices_and_node_js_train_what_a_simulation_trains(
    deployment: Deployment, supernodes: dict[str, ExitStack], monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter, folder, out = node(), deployment.folder, deployment.folder / "mixed"
    spare = [name for name in SUPERNODES if name not in deployment.killed][:2]
    for name in spare:
        supernodes[name].close()
    fleet = [name for name in NAMES if name not in spare]
    shutil.copytree(
        OWN_SERVER / "careful", deployment.app / "careful", ignore=shutil.ignore_patterns("__pycache__")
    )
    monkeypatch.syspath_prepend(OWN_SERVER)  # for the simulation
    # What the devices kept of another federation would be felt in this one.
    shutil.rmtree(folder / "var" / "state", ignore_errors=True)
    deployment.command(f"slimfleet-coordinator pki device pki {' '.join((*AT_GATEWAY, NODE_JS))}")
    for number, name in enumerate(NAMES):
        kind = "node" if name == NODE_JS else f"class-{number}"
        board = replace(BOARD, name=name, device_class=kind)
        (folder / "etc" / f"{name}.json").write_text(json.dumps(asdict(board)))
    describe(folder)
    (port,) = free_ports(1)
    with ExitStack() as stack:
        for name in AT_GATEWAY:
            stack.enter_context(gateway_device(deployment, name, port))
        stack.enter_context(
            deployment.running(
                NODE_JS,
                f"exec {interpreter} {CLIENT}/device.js --gateway 127.0.0.1:{port} --keys pki/devices/{NODE_JS} "
                f"--model {folder}/model.json --data {folder}/data.json --profile {folder}/etc/{NODE_JS}.json",
            )
        )  # fmt: skip
        stack.enter_context(deployment.run("mixed", MIXED.format(port=port), TASK))
        deployment.await_end("mixed", 2)

    rows = rows_of(out)
    assert [(row["completed"], row["rejected"], row["failed"]) for row in rows] == [("5", "0", "0")] * 2, (
        logs(folder)
    )
    nodes = named_nodes(out)
    assert sorted(nodes) == sorted(fleet)
    known = named_nodes(folder / "five") if deployment.killed else {}
    shared = nodes.keys() & known.keys()
    assert [nodes[name] for name in shared] == [known[name] for name in shared]  # a key stays the same node
    assert {name: nodes[name] for name in (*AT_GATEWAY, NODE_JS)} == {
        name: node_of(name) for name in (*AT_GATEWAY, NODE_JS)
    }
    assert [each.participations for each in registry_of(out)] == [2] * 5
    model = load_file(out / "model.safetensors")
    again = simulated(folder, folder / "mixed.toml", nodes)
    assert distance(model, again.published()) < 1e-4
    fresh = tensors_of(load_task(TASK, {}, partitions=1, seed=0, options=OPTIONS).build_model())
    assert distance(model, fresh) > 0.1
