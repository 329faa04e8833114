"""`slimfleet-simulate` as a person meets it: good runs leave a full folder, bad input one clear line and exit 2."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., int]
SIMULATE = [sys.executable, "-m", "slimfleet.simulations.cli"]
SMALL = ["--rounds", "2", "--devices", "20", "--set", "selection.per_round=5"]


@pytest.mark.slow
def test_a_run_leaves_the_folder_that_the_design_promises(
    simulate_here: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate_here(*SMALL, "--baseline", "--set", "run.baseline_rounds=2") == 0
    said = capsys.readouterr().out
    out = tmp_path / "slimfleet-out" / "digits"
    promised = {
        "summary.json",
        "rounds.csv",
        "devices.csv",
        "report.html",
        "model.safetensors",
        "scenario.toml",
    }
    assert promised | {"checkpoint"} <= {path.name for path in out.iterdir()}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["rounds"] == summary["baseline"]["rounds"] == 2
    assert summary["energy_source"] == "simulated"
    assert 10 * summary["uplink_bytes"] < summary["uplink_bytes_float32"]
    assert tomllib.loads((out / "scenario.toml").read_text())["fleet"]["devices"] == 20
    for word in ("accuracy", "energy (simulated)", "virtual time", "slimfleet-out/digits"):
        assert word in said


def test_a_second_run_gets_a_folder_of_its_own(
    simulate_here: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert simulate_here(*SMALL, "--rounds", "1") == 0
    assert {path.name for path in (tmp_path / "slimfleet-out").iterdir()} == {"digits", "digits-2"}
    assert simulate_here(*SMALL, "--out", "slimfleet-out/digits") == 2
    assert "holds a run already" in capsys.readouterr().err


def test_bad_input_gives_one_clear_line_and_exit_code_2(tmp_path: Path) -> None:
    """One process; `tests/simulations/test_cli.py` has the cases."""
    (tmp_path / "mine.toml").write_text("rounds = 3\n[budget]\nenergy_j = -1.0\n")
    done = subprocess.run(
        [*SIMULATE, "mine.toml"], cwd=tmp_path, timeout=120, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "mine.toml: budget.energy_j" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "slimfleet-out").exists()


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    command = [*SIMULATE, "--rounds", "5000", "--out", "out"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        # A shell that runs tests in the background makes its children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as run:
        try:
            until = time.monotonic() + 60
            while not list(tmp_path.glob("out/checkpoint/round-*")) and time.monotonic() < until:
                time.sleep(0.1)
            run.send_signal(signal.SIGINT)
            _, stderr = run.communicate(timeout=60)
        finally:
            run.kill()
    assert run.returncode == 130
    assert "slimfleet-simulate --resume out" in stderr
    assert "Traceback" not in stderr
