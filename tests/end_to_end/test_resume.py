"""A coordinator killed by SIGKILL ends, after --resume, with the same model bytes as one that was left alone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from runpy import run_path

import pytest

SCRIPT = Path(__file__).parent / "killed_run.py"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a whole run in a mode; each is run once."""

    @cache
    def of(mode: str) -> Path:
        out = tmp_path_factory.mktemp("whole") / "out"
        run_path(str(SCRIPT))["run"](out, mode)
        return out

    return of


@pytest.mark.parametrize(
    ("when", "mode"),
    [("between", "waiting"), ("within", "over-selection"), ("within", "asynchronous")],
)
def test_a_killed_run_resumes_to_the_same_model_bytes(
    when: str,
    mode: str,
    tmp_path: Path,
    uninterrupted: Callable[[str], Path],
    simulate_here: Callable[..., int],
) -> None:
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, SCRIPT, out, when, mode], timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (out / "summary.json").exists()
    assert len(list((out / "devices").iterdir())) > 0
    assert simulate_here("--resume", out) == 0
    whole = uninterrupted(mode)
    for model in ("model.safetensors", "model-best.safetensors"):
        assert (out / model).read_bytes() == (whole / model).read_bytes()
    ours, theirs = (json.loads((folder / "summary.json").read_text()) for folder in (out, whole))
    assert ours["rounds"] == 5
    for field in (
        "uplink_bytes",
        "downlink_bytes",
        "energy_j",
        "virtual_time_s",
        "failed",
        "outcomes",
        "accuracy",
        "best",
    ):
        assert ours[field] == theirs[field]


def test_a_finished_run_can_be_resumed_and_stays_as_it_is(
    uninterrupted: Callable[[str], Path], simulate_here: Callable[..., int]
) -> None:
    whole = uninterrupted("waiting")
    before = (whole / "model.safetensors").read_bytes()
    assert simulate_here("--resume", whole) == 0
    assert (whole / "model.safetensors").read_bytes() == before
