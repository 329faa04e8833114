"""Sweeps in processes side by side, killed and taken up again, and on Ray: always the same model bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slimfleet.simulations.sweeps.sweep import run_sweep
from slimfleet.simulations.sweeps.sweep_file import load_sweep

TASKS = Path(__file__).parent.parent / "simulations"
SWEEP = f"""
scenario = "digits"
seeds = [0, 1, 2]
[set]
rounds = 3
task.name = "points:Points"
task.import_from = [{json.dumps(str(TASKS))}]
fleet.devices = 6
selection.per_round = 3
"""
PATIENCE_S = 200


def models(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.glob("cells/*/*/model.safetensors")}


def alive(children: list[int]) -> list[int]:
    """Those of the processes that still run."""
    states = {pid: Path(f"/proc/{pid}/stat") for pid in children}
    return [pid for pid, stat in states.items() if stat.exists() and stat.read_text().split()[2] != "Z"]


def children_of(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [each for child in map(int, found) for each in (child, *children_of(child))]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's list of processes")
def test_a_killed_sweep_goes_on_to_the_same_models(tmp_path: Path, ray_running: None) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SWEEP)
    command = [
        sys.executable,
        "-m",
        "slimfleet.simulations.cli",
        "sweep",
        str(path),
        "--out",
        str(tmp_path / "killed"),
    ]
    with subprocess.Popen([*command, "--jobs", "2"], stderr=subprocess.DEVNULL) as run:
        until = time.monotonic() + PATIENCE_S
        while not list(tmp_path.glob("killed/cells/*/*/summary.json")) and time.monotonic() < until:
            time.sleep(0.02)
        children = children_of(run.pid)
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
    assert children
    while alive(children) and time.monotonic() < until:
        time.sleep(0.05)
    assert alive(children) == []
    assert run_sweep(load_sweep(path), tmp_path / "killed").problems == {}
    assert run_sweep(load_sweep(path), tmp_path / "ray", backend="ray").problems == {}
    assert len(models(tmp_path / "ray")) == 3
    assert models(tmp_path / "killed") == models(tmp_path / "ray")
    lines = [(tmp_path / each / "sweep.csv").read_text().splitlines() for each in ("killed", "ray")]
    assert [len(each) for each in lines] == [4, 4]
