"""A coordinator killed by SIGKILL ends, after --resume, with the same model bytes as one that was left alone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SIMULATE = [sys.executable, "-m", "slimfleet.simulations.cli"]


def start(out: Path, when: str) -> int:
    return subprocess.run(
        [sys.executable, str(HERE / "killed_run.py"), str(out), when], timeout=120
    ).returncode


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    assert start(out, "never") == 0
    return out


@pytest.mark.slow
@pytest.mark.parametrize("when", ["between", "within"])
def test_a_killed_run_resumes_to_the_same_model_bytes(when: str, tmp_path: Path, uninterrupted: Path) -> None:
    out = tmp_path / "out"
    assert start(out, when) == -signal.SIGKILL
    assert not (out / "summary.json").exists()
    assert len(list((out / "devices").iterdir())) > 0
    subprocess.run([*SIMULATE, "--resume", str(out)], check=True, timeout=120, capture_output=True)
    assert (out / "model.safetensors").read_bytes() == (uninterrupted / "model.safetensors").read_bytes()
    ours, theirs = (json.loads((folder / "summary.json").read_text()) for folder in (out, uninterrupted))
    assert ours["rounds"] == 5
    for field in ("uplink_bytes", "downlink_bytes", "energy_j", "virtual_time_s", "failed", "accuracy"):
        assert ours[field] == theirs[field]


@pytest.mark.slow
def test_a_finished_run_can_be_resumed_and_stays_as_it_is(tmp_path: Path, uninterrupted: Path) -> None:
    before = (uninterrupted / "model.safetensors").read_bytes()
    subprocess.run([*SIMULATE, "--resume", str(uninterrupted)], check=True, timeout=120, capture_output=True)
    assert (uninterrupted / "model.safetensors").read_bytes() == before


def test_resuming_where_nothing_ran_says_so(tmp_path: Path) -> None:
    done = subprocess.run([*SIMULATE, "--resume", str(tmp_path)], timeout=120, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no run to resume" in done.stderr
    assert "Traceback" not in done.stderr
