"""The commands of deploy/flower/README.md, to the letter: only folders, ports and the number of rounds are others'."""

from __future__ import annotations

import csv
import re
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
from flower_processes import APP, connects, eventually, free_ports, logs, running
from safetensors.numpy import load_file

ROUNDS = 2


def commands() -> list[str]:
    """The indented blocks of the three steps, in their order."""
    steps = (APP / "README.md").read_text().split("## 1. The server")[1].split("## TLS")[0]
    return [re.sub(r"^    ", "", block, flags=re.M) for block in re.findall(r"(?:^    .*\n)+", steps, re.M)]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_devices_that_follow_the_readme_train_a_model(tmp_path: Path) -> None:
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
    settings = (app / "federation.toml").read_text()
    (app / "federation.toml").write_text(re.sub(r"^rounds = \d+", f"rounds = {ROUNDS}", settings, flags=re.M))
    (tmp_path / "flwr").mkdir()
    (tmp_path / "flwr" / "config.toml").write_text(here(connection))
    with ExitStack() as stack:

        def follow(name: str, text: str) -> None:
            stack.enter_context(running(name, tmp_path, "bash", "-ec", here(text)))

        follow("superlink", server)
        eventually(lambda: connects(link), "the SuperLink listens", tmp_path)
        follow("node0", device.replace("9094", str(first)))
        # One after the other: two that measure their speed at a time are each half as fast.
        eventually(lambda: connects(first), "the first SuperNode listens", tmp_path)
        follow("node1", device.replace("9094", str(second)).replace("partition-id=0", "partition-id=1"))
        follow("flwr", f"cd {app}\n{run}")
        model = tmp_path / "var" / "federation" / "model.safetensors"
        eventually(model.exists, "the model is published", tmp_path)
        assert load_file(model)
        report = model.parent / "report.html"
        eventually(report.exists, "the report is written", tmp_path)
        with (model.parent / "rounds.csv").open() as file:
            rounds = list(csv.DictReader(file))
        assert len(rounds) == ROUNDS
        assert sum(int(row["completed"]) for row in rounds) > 0, logs(tmp_path)
        assert ": startup " in (tmp_path / "node1.log").read_text()
