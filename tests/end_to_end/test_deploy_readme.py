"""The commands of deploy/flower/README.md, to the letter: only folders, ports and the number of rounds are others'.

The same command then resumes with one round more, planned by policies that lie beside the app: a copy of
docs/examples/own_server.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flower_processes import APP, connects, eventually, free_ports, logs, running
from safetensors.numpy import load_file

from slimfleet.client.tasks import Digits
from slimfleet.compression.tensors import tensors_of

DEVICES = 2
POLICIES = Path(__file__).parents[2] / "docs" / "examples" / "own_server" / "careful"
LINGER = "metrics-linger-s = 30.0"
"""The folder of a run is its own until then."""


def commands() -> list[str]:
    """The indented blocks of the three steps, in their order."""
    steps = (APP / "README.md").read_text().split("## 1. The server")[1].split("## TLS")[0]
    return [re.sub(r"^    ", "", block, flags=re.M) for block in re.findall(r"(?:^    .*\n)+", steps, re.M)]


def rewrite(path: Path, *changes: tuple[str, str]) -> None:
    """Change lines of a file that must be there."""
    text = path.read_text()
    for pattern, line in changes:
        text, count = re.subn(pattern, line, text, flags=re.M)
        assert count == 1, pattern
    path.write_text(text)


def checkpointed(out: Path, rounds: int) -> dict[str, Any]:
    """The state after so many rounds, to each of which both devices have contributed."""
    state: dict[str, Any] = json.loads(
        (out / "checkpoint" / f"round-{rounds:06d}" / "state.json").read_text()
    )
    assert [row["completed"] for row in state["rows"]] == [DEVICES] * rounds, logs(out.parents[1])
    assert state["totals"]["rejected"] == state["totals"]["failed"] == {}
    return state


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_devices_that_follow_the_readme_train_a_model_and_resume(tmp_path: Path) -> None:
    server, device, connection, run = commands()
    link, first, second, metrics = free_ports(4)

    def here(text: str) -> str:
        """The same on this machine, in a folder of the test's own."""
        text = text.replace("/var/lib/slimfleet", f"{tmp_path}/var").replace(
            "/etc/slimfleet", f"{tmp_path}/etc"
        )
        return text.replace("8000", str(link)).replace("SERVER", "127.0.0.1").replace("9400", str(metrics))

    app = tmp_path / "app"
    shutil.copytree(APP, app, ignore=shutil.ignore_patterns("__pycache__"))
    rewrite(app / "federation.toml", (r"^rounds = \d+", "rounds = 1"))
    rewrite(app / "pyproject.toml", (LINGER, "metrics-linger-s = 0.0"))
    (tmp_path / "flwr").mkdir()
    (tmp_path / "flwr" / "config.toml").write_text(here(connection))
    out = tmp_path / "var" / "federation"
    published, report = out / "model.safetensors", out / "report.html"
    with ExitStack() as stack:

        def follow(name: str, text: str) -> None:
            stack.enter_context(running(name, tmp_path, "bash", "-ec", here(text)))

        follow("superlink", server)
        eventually(lambda: connects(link), "the SuperLink listens", tmp_path)
        follow("node0", device.replace("9094", str(first)))
        # One after the other: the profile of the first is the second's too.
        eventually(lambda: connects(first), "the first SuperNode listens", tmp_path)
        supernode = device[device.index("flower-supernode") :]
        follow("node1", supernode.replace("9094", str(second)).replace("partition-id=0", "partition-id=1"))
        follow("flwr", f"cd {app}\n{run}")
        eventually(report.exists, "the report is written", tmp_path)
        model, fresh = load_file(published), tensors_of(Digits(1).build_model())
        assert {name: value.shape for name, value in model.items()} == {n: v.shape for n, v in fresh.items()}
        assert all(np.isfinite(value).all() for value in model.values())
        one = checkpointed(out, 1)
        assert ": startup " in (tmp_path / "node1.log").read_text()
        kept = sorted(path.name for path in (tmp_path / "var" / "state").glob("*.device"))
        assert kept == ["0.device", "1.device"]

        published.unlink()
        shutil.copytree(POLICIES, app / "careful", ignore=shutil.ignore_patterns("__pycache__"))
        rewrite(
            app / "federation.toml",
            (r"^rounds = 1$", "rounds = 2"),
            (r"^\[selection\]$", '[selection]\npolicy = "careful.selection:charging_first"'),
            (r"^\[planner\]$", '[planner]\npolicy = "careful.planning:FixedSteps"'),
        )
        follow("flwr", f"cd {app}\n{run}")
        eventually(published.exists, "the model of the second round is published", tmp_path)
    two = checkpointed(out, 2)
    assert two["rows"][:1] == one["rows"]
    assert all(each["last_reason"].startswith("careful: 8 steps") for each in two["registry"]), two[
        "registry"
    ]
    assert not all(np.array_equal(value, model[name]) for name, value in load_file(published).items())
    with (out / "rounds.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2
