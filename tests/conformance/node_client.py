"""The Node.js client for tests: where it is, and whether it can run here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

CLIENT = Path(__file__).parents[2] / "deploy" / "node"


def node() -> str:
    """The interpreter, where the client and its packages are there; else the test is skipped, or fails in CI."""
    found = shutil.which("node")
    if found is not None and (CLIENT / "node_modules" / "@grpc" / "grpc-js").is_dir():
        return found
    lacking = "Node.js is not installed" if found is None else f"`npm ci` has not been run in {CLIENT.name}"
    reason = f"the Node.js client is not tested: {lacking} (tests/setup-node.sh installs both)"
    if os.environ.get("SLIMFLEET_REQUIRE_NODE"):
        pytest.fail(reason)
    pytest.skip(reason)
