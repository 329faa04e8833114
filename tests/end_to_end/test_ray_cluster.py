"""An existing Ray cluster of two nodes: used, not changed, and refused in one line where it is not fit for a run."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent / "two_nodes.py"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found() -> Iterator[dict[str, Any]]:
    """What came of the runs; in a process of its own, since one process is connected to one Ray only."""
    with tempfile.TemporaryDirectory(prefix="slim-") as folder:  # short, for Ray's sockets
        ran = subprocess.run([sys.executable, SCRIPT, folder], capture_output=True, text=True, timeout=280)
        assert ran.returncode == 0, ran.stderr[-5000:]
        yield json.loads(ran.stdout.splitlines()[-1])


def test_a_node_lost_and_another_gained_leave_the_same_bytes(found: dict[str, Any]) -> None:
    """With 30% dropouts. What devices keep between rounds is on the driver, whichever node they were run on."""
    assert found["cluster"]["failed"].keys() == {"dropout"}
    assert found["cluster"] == found["here"]
    assert len(found["cluster"]["states"]) > 5


def test_runs_leave_the_cluster_as_it_was_also_after_ctrl_c(found: dict[str, Any]) -> None:
    assert (found["left"], found["left by Ctrl-C"], found["connected"]) == ([], [], False)


def test_a_cluster_that_is_not_fit_is_refused_before_anything_is_written(found: dict[str, Any]) -> None:
    assert "cannot be used: Version mismatch: The cluster was started with: Ray: 2.55" in found["other Ray"]
    assert "lacks slimfleet" in found["no slimfleet"]
    assert found["written"] == []
