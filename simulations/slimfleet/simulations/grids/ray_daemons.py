"""Ray's daemons: on this machine alone, closed to others, in a short private folder, and gone when this process is.

What Ray has no public way for is here: its settings are read when it is first imported, so they are read again.
"""

from __future__ import annotations

import logging
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import _raylet
from ray._private import ray_constants

from slimfleet.compression import BadInput
from slimfleet.simulations.grids import ray_reaper
from slimfleet.simulations.grids.ray_signals import sigterm_ends, sigterm_waits

__all__ = ["local_ray"]

_LONGEST_SOCKET = 103
"""Bytes that the path of a Unix socket may have on macOS; Linux allows four more."""
_BELOW = len("/slim-12345678/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
"""Bytes of the path of Ray's sockets below the folder for temporary files."""


@contextmanager
def local_ray(workers: int) -> Iterator[None]:
    """Ray with so many worker processes, 0 for one per processor core, while the block lasts.

    Where Ray runs in this process already, nothing happens.

    Its ports are open on the loopback address only, and to none who lack a token that is made afresh, unless
    `RAY_AUTH_MODE` says otherwise. SIGTERM ends this process by SystemExit, as Ctrl-C does by KeyboardInterrupt, unless
    it is handled already; while Ray starts, it waits. Where this process is killed, what it started is killed too.

    Raises BadInput where no folder for temporary files has a path short enough.
    """
    if ray.is_initialized():
        yield
        return
    with _private_folder() as folder, _environment(_settings(folder)), sigterm_ends():
        try:
            with sigterm_waits():
                ray.init(
                    address="local",
                    num_cpus=workers or None,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.WARNING,
                    _temp_dir=str(folder / "r"),  # Ray opens its own folder to everybody
                )
            yield
        finally:
            ray.shutdown()


@contextmanager
def _private_folder() -> Iterator[Path]:
    """A folder for Ray's sockets and logs, and a process that outlives this one to clear up after it."""
    folder = Path(tempfile.mkdtemp(prefix="slim-", dir=_short_parent()))
    script = str(ray_reaper.__file__)
    reaper = subprocess.Popen(
        [sys.executable, "-I", "-S", script, str(folder)],
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C at the terminal is not for it
    )
    try:
        yield folder
    finally:
        reaper.communicate(ray_reaper.DONE)


def _short_parent() -> Path:
    chosen = Path(tempfile.gettempdir())
    for parent in (chosen, Path("/tmp"), Path("/var/tmp")):
        if len(os.fsencode(parent)) + _BELOW <= _LONGEST_SOCKET and os.access(parent, os.W_OK | os.X_OK):
            return parent
    raise BadInput(
        f"Ray needs a folder for temporary files whose path has at most {_LONGEST_SOCKET - _BELOW} bytes, "
        f"{chosen} has {len(os.fsencode(chosen))}: set TMPDIR to a shorter one, or use --backend local"
    )


def _settings(folder: Path) -> dict[str, str]:
    """Environment variables for Ray and its daemons; what the user has set stands."""
    settings = {
        ray_reaper.MARK: str(folder),
        "RAY_AUTH_MODE": "token",
        ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0",  # listens on the loopback address, on Linux too
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's coming default, so that it does not warn
    }
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        settings["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    return {key: value for key, value in settings.items() if key not in os.environ or key == ray_reaper.MARK}


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    clusters, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    os.environ.update(settings)
    _read_again()
    try:
        yield
    finally:
        for key in settings:
            del os.environ[key]
        ray_constants.ENABLE_RAY_CLUSTER = clusters
        _read_again()


def _read_again() -> None:
    """Have this process take up the environment variables that the daemons will find."""
    internals: Any = _raylet  # compiled, without types
    internals.Config.initialize("")
    internals.AuthenticationTokenLoader.instance().reset_cache()
