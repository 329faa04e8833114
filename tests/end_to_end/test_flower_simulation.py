"""The same ServerApp and ClientApp run under Flower's own simulation engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "flower_simulation.py"


@pytest.mark.slow
def test_the_same_apps_run_under_flowers_own_engine(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    quiet = os.environ | {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_HOME": str(tmp_path),
    }
    command = [sys.executable, str(SCRIPT), str(out), str(tmp_path / "devices")]
    done = subprocess.run(command, env=quiet, timeout=240, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(out.read_text())
    assert [row["completed"] for row in result["rows"]] == [4, 4]
    assert result["rejected"] == result["failed"] == {}
