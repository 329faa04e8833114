"""What several end-to-end tests start: `slimfleet-simulate` in this process, and one Ray for a whole session."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slimfleet.simulations import cli

Command = Callable[..., int]


@pytest.fixture
def simulate_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Run `slimfleet-simulate` with these arguments in this process and a folder of the test's own; its exit code."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> int:
        monkeypatch.setattr(sys, "argv", ["slimfleet-simulate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    return run


@pytest.fixture(scope="session")
def ray_running() -> Iterator[None]:
    """Ray on this machine alone, shared by every test that asks for it."""
    import ray

    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = (
        "0"  # asks Ray for its coming default, so that it does not warn
    )
    with warnings.catch_warnings():
        # Starting its daemons, Ray leaves handles of /dev/null to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        gc.collect()
    yield
    ray.shutdown()
