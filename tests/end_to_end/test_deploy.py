"""The commands of deploy/README.md, to the letter: a coordinator with TLS and two devices, from a clone.

Only addresses, ports and the length of the run are others', and what the first command installs is there already.
"""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from flower_processes import BIN, eventually, free_ports, logs, running
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[2]
ROUNDS = 1
MOST_COMMANDS = 8


def script() -> str:
    """The first indented block."""
    (block, *_) = re.findall(r"(?:^    .*\n)+", (ROOT / "deploy" / "README.md").read_text(), re.M)
    return re.sub(r"^    ", "", block, flags=re.M)


def commands() -> list[str]:
    return script().replace("\\\n", "").splitlines()


def test_a_federation_with_tls_is_eight_commands_away() -> None:
    assert len(commands()) <= MOST_COMMANDS


def test_the_first_command_installs_what_the_others_need() -> None:
    first = commands()[0]
    target = re.fullmatch(r"make (\w+)", first)
    assert target is not None, first
    told = subprocess.run(
        ["make", "--dry-run", "--always-make", target[1]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.returncode == 0, told.stderr
    assert '--editable ".[coordinator,simulation]"' in told.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_coordinator_and_two_devices_that_follow_the_readme_train_a_model(tmp_path: Path) -> None:
    clone, (port, metrics) = tmp_path / "clone", free_ports(2)
    shutil.copytree(
        ROOT / "deploy" / "gateway", clone / "deploy" / "gateway",
        ignore=shutil.ignore_patterns("pki", "federation", "device.json", "state-*"),
    )  # fmt: skip
    (clone / ".venv").mkdir()
    (clone / ".venv" / "bin").symlink_to(BIN)
    settings = clone / "deploy" / "gateway" / "federation.toml"
    text = settings.read_text()
    for theirs, ours in {
        "rounds = 20": f"rounds = {ROUNDS}", "max_epochs = 5.0": "max_epochs = 0.5",
        '"0.0.0.0"': '"127.0.0.1"', "8443": str(port), "9400": str(metrics),
    }.items():  # fmt: skip
        assert theirs in text
        text = text.replace(theirs, ours)
    settings.write_text(text)

    rest = script().partition("\n")[2].replace("8443", str(port))
    out = clone / "deploy" / "gateway" / "federation"
    with running("clone", tmp_path, "bash", "-ec", rest) as log:
        over = (out / "report.html").exists
        eventually(lambda: over() or "error:" in log.read_text(), "the report is written", tmp_path)
    assert over(), logs(tmp_path)
    assert load_file(out / "model.safetensors")
    with (out / "rounds.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == ROUNDS
    assert sum(int(row["completed"]) for row in rows) > 0, logs(tmp_path)
    assert log.read_text().count("has registered") == 2
