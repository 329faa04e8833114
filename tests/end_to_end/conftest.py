"""One Ray for all tests of a session: starting it takes longer than any test."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator

import pytest


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
