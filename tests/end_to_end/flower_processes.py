"""Flower's own processes on loopback, as an operator starts them: SuperLinks, SuperNodes and `flwr`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from shutil import which

import pytest

APP = Path(__file__).parents[2] / "deploy" / "flower"
BIN = Path(sys.executable).parent
PATIENCE_S = 150


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def environment(home: Path) -> dict[str, str]:
    """Each process keeps Flower's files in a folder of its own, and calls nobody."""
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "OMP_NUM_THREADS": "1"}
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"  # Flower starts its helpers by name
    return os.environ | quiet | {"FLWR_HOME": str(home), "PATH": path}


@contextmanager
def running(name: str, folder: Path, command: str, *options: str, **variables: str) -> Iterator[Path]:
    """A process in a session of its own, ended with all that it has started; gives the file of its output."""
    home, log = folder / name, folder / f"{name}.log"
    home.mkdir(exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [which(command, path=environment(home)["PATH"]) or command, *options],
            cwd=home,
            env=environment(home) | variables,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield log
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask the process to stop; whatever of its session is left after ten seconds is killed."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


@contextmanager
def superlink(folder: Path, port: int) -> Iterator[None]:
    """A SuperLink without TLS that listens, and that `flwr` in `folder` knows as `loopback`."""
    (folder / "flwr").mkdir(exist_ok=True)
    connection = f'[superlink.loopback]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    (folder / "flwr" / "config.toml").write_text(connection)
    with running(
        "superlink", folder, "flower-superlink", "--insecure", "--host=127.0.0.1", f"--port={port}",
        f"--database={folder / 'state.db'}", "--disable-runtime-dependency-installation",
    ):  # fmt: skip
        eventually(lambda: connects(port), "the SuperLink listens", folder)
        yield


def connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def eventually(holds: Callable[[], bool], what: str, folder: Path) -> None:
    """Look until it holds; fail with the ends of all logs."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if holds():
            return
        time.sleep(0.2)
    pytest.fail(f"{what}: not after {PATIENCE_S} s\n{logs(folder)}")


def logs(folder: Path) -> str:
    return "\n".join(f"== {log.name}\n{log.read_text()[-3_000:]}" for log in sorted(folder.glob("*.log")))
