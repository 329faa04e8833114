"""The app in deploy/flower on a real SuperLink with real SuperNodes, as an operator starts them, on loopback.

Beside its two files lies the package of policies of docs/examples/own_server, which its settings name.
"""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from board import BOARD
from flower_processes import APP, PATIENCE_S, eventually, free_ports, logs, running, superlink
from safetensors.numpy import load_file

from slimfleet.client.tasks import Digits
from slimfleet.compression.tensors import tensors_of

DEVICES = 2

OWN_POLICIES = Path(__file__).parents[2] / "docs" / "examples" / "own_server" / "careful"

SETTINGS = f"""round_timeout_s = 140.0
client = {{learning_rate = 0.05}}
selection = {{policy = "careful.selection:charging_first", per_round = {DEVICES}, min_devices = {DEVICES}}}
planner = {{policy = "careful.planning:FixedSteps", widths = [1.0, 0.5], batch_sizes = [8]}}
server = {{optimizer = "careful.optimizer:nesterov"}}
"""


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A SuperLink and its SuperNodes; gives their folder, in which the app lies, and the name of the SuperLink for
    `flwr`."""
    link, *nodes = free_ports(1 + DEVICES)
    shutil.copytree(APP, tmp_path / "app")
    shutil.copytree(OWN_POLICIES, tmp_path / "app" / "careful")
    (tmp_path / "board.json").write_text(json.dumps(asdict(BOARD)))
    with ExitStack() as stack:
        stack.enter_context(superlink(tmp_path, link))
        for number, port in enumerate(nodes):
            says = (
                f"partition-id={number} num-partitions={DEVICES} meter='none' "
                f"profile='{tmp_path / 'board.json'}' state='{tmp_path / 'residuals'}'"
            )
            stack.enter_context(
                running(
                    f"node{number}", tmp_path, "flower-supernode", "--insecure", f"--superlink=127.0.0.1:{link}",
                    "--host=127.0.0.1", f"--port={port}", "--node-config", says,
                )
            )  # fmt: skip
        yield tmp_path, "loopback"


def estimated_j(port: int) -> float:
    """Joules that the coordinator's metrics call estimated."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except (urllib.error.URLError, ConnectionError):
        return 0.0  # not up yet
    lines = [line for line in text.splitlines() if line.startswith("slimfleet_client_energy_joules_total{")]
    joules = {line: float(line.rsplit(" ", 1)[1]) for line in lines}
    assert sum(value for line, value in joules.items() if 'source="estimated"' not in line) == 0
    return sum(joules.values())


@contextmanager
def flwr_run(folder: Path, superlink: str, rounds: int, metrics_port: int = 0) -> Iterator[None]:
    """The command of an operator at work, for a federation of so many rounds that leaves its results in `out`."""
    settings = folder / "federation.toml"
    settings.write_text(f"rounds = {rounds}\n{SETTINGS}")
    says = (
        f"server.settings='{settings}' server.out='{folder / 'out'}' "
        f"server.metrics-port={metrics_port} server.metrics-linger-s=0.0"
    )
    with running(
        "flwr", folder, "flwr", "run", str(folder / "app"), superlink, "--stream", "--run-config", says
    ):
        yield


def checkpointed(folder: Path, rounds: int) -> dict[str, Any]:
    """The state after so many rounds."""
    state = json.loads((folder / "out" / "checkpoint" / f"round-{rounds:06d}" / "state.json").read_text())
    assert [row["completed"] for row in state["rows"]] == [DEVICES] * rounds, logs(folder)
    assert state["totals"]["rejected"] == state["totals"]["failed"] == {}
    reasons = [device["last_reason"] for device in state["registry"]]
    assert all(reason.startswith("careful: 8 steps") for reason in reasons), reasons
    return state


@pytest.mark.slow
@pytest.mark.timeout(4 * PATIENCE_S)
def test_two_rounds_on_a_real_superlink_and_a_third_from_their_checkpoint(
    federation: tuple[Path, str],
) -> None:
    folder, superlink = federation
    published = folder / "out" / "model.safetensors"
    (port,) = free_ports(1)
    with flwr_run(folder, superlink, rounds=2, metrics_port=port):
        eventually(lambda: estimated_j(port) > 0, "the metrics count estimated joules", folder)
        eventually(published.exists, "the model is published", folder)
        eventually(lambda: "round 2 of 2: 2 of 2 devices" in logs(folder), "flwr streams the rounds", folder)
    two = checkpointed(folder, 2)
    model, fresh = load_file(published), tensors_of(Digits(1).build_model())
    assert {name: value.shape for name, value in model.items()} == {n: v.shape for n, v in fresh.items()}
    assert all(np.isfinite(value).all() for value in model.values())
    kept = sorted(path.name for path in (folder / "residuals").glob("*.device"))
    assert kept == ["0.device", "1.device"]

    published.unlink()
    with flwr_run(folder, superlink, rounds=3):
        eventually(published.exists, "the model of the third round is published", folder)
    assert checkpointed(folder, 3)["rows"][:2] == two["rows"]
    assert not all(np.array_equal(value, model[name]) for name, value in load_file(published).items())
