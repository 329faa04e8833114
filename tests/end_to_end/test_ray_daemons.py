"""Ray as a run starts it: closed to others whatever TMPDIR is, and gone when the run is, however that ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from slimfleet.compression.errors import DiskError
from slimfleet.simulations import load_scenario, simulate
from slimfleet.simulations.grids.ray_reaper import MARK, marked
from slimfleet.simulations.run import resumed_scenario

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks processes up in /proc"),
]

COMMAND = [sys.executable, "-m", "slimfleet.simulations.cli", "--backend", "ray", "--rounds", "5000"]
SMALL = ["--devices", "10", "--set", "selection.per_round=2", "--set", "run.workers=1"]
LONGEST_S = 120.0


@contextmanager
def running(out: Path, tmpdir: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*COMMAND, *SMALL, "--out", str(out)],
        env=os.environ | {"TMPDIR": str(tmpdir)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        try:
            yield run
        finally:
            run.kill()


def until(found: Callable[[], object], run: subprocess.Popen[str] | None = None) -> object:
    """Wait for something to be true; a run that ends first fails the test."""
    give_up = time.monotonic() + LONGEST_S
    while not (value := found()):
        assert time.monotonic() < give_up, "nothing came"
        assert run is None or run.poll() is None, run and run.stderr and run.stderr.read()
        time.sleep(0.05)
    return value


def folder_of(run: subprocess.Popen[str]) -> str:
    """The folder of the run's Ray, as the environment of a child of it says."""
    for child in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split():
        for entry in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            if entry.startswith(MARK.encode()):
                return entry.decode().partition("=")[2]
    return ""


def listening(pids: list[int]) -> set[tuple[str, int]]:
    """Addresses on which these processes accept TCP connections."""
    sockets = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                sockets.add(str(link.readlink()))
            except OSError:
                continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            address, port = fields[1].split(":")
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                words = [bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8)]
                found.add((str(ip_address(b"".join(words))), int(port, 16)))
    return found


def is_loopback(address: str) -> bool:
    parsed = ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


INTRUDER = """
import sys
from ray._raylet import GcsClient
try:
    GcsClient(address=sys.argv[1]).internal_kv_keys(b"", None)
except Exception as refused:
    print(type(refused).__name__)
else:
    print("let in")
"""


def test_a_run_is_closed_to_others_and_leaves_nothing_when_it_is_terminated(tmp_path: Path) -> None:
    long = tmp_path / ("x" * (107 - len(str(tmp_path)) - 1))
    long.mkdir()
    with running(tmp_path / "out", long) as run:
        until(lambda: list(tmp_path.glob("out/checkpoint/round-*")), run)
        folder = folder_of(run)
        pids = marked(folder)
        assert len(pids) >= 3, "the global store, the raylet, a worker"
        assert Path(folder).stat().st_mode & 0o077 == 0
        addresses = listening([*pids, run.pid])
        assert len(addresses) >= 3
        assert {address for address, _ in addresses if not is_loopback(address)} == set()
        commands = b" ".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids)
        found = re.search(rb"--gcs-address=([0-9.:]+)", commands)
        assert found
        clean = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        for guess in ({}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}):
            said = subprocess.run(
                [sys.executable, "-c", INTRUDER, found[1].decode()],
                env=clean | guess,
                capture_output=True,
                text=True,
                timeout=LONGEST_S,
            )
            assert said.stdout.strip() == "AuthenticationError", said.stderr
        run.send_signal(signal.SIGTERM)
        _, stderr = run.communicate(timeout=LONGEST_S)
    assert run.returncode == 128 + signal.SIGTERM
    assert "***" not in stderr
    assert "Traceback" not in stderr
    assert marked(folder) == []
    assert not Path(folder).exists()


def test_killed_while_ray_starts_it_leaves_no_process_and_no_folder(tmp_path: Path) -> None:
    with running(tmp_path / "out", tmp_path) as run:
        folder = str(until(lambda: folder_of(run), run))
        until(lambda: len(marked(folder)) >= 4, run)  # the raylet is starting its agents
        run.kill()
        until(lambda: not Path(folder).exists())
    assert marked(folder) == []


@pytest.mark.usefixtures("ray_running")
def test_what_a_device_says_of_its_files_reaches_the_driver(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = {"rounds": "1", "fleet.devices": "6", "selection.per_round": "6", "run.workers": "1"}
    simulate(load_scenario("digits", small), tmp_path / "out")
    files = list(tmp_path.glob("out/devices/*.device"))
    for file in files:
        file.write_bytes(file.read_bytes()[:-1])
    simulate(resumed_scenario(tmp_path / "out", 2), tmp_path / "out", backend="ray", resume=True)
    assert any(str(file) in caplog.text for file in files)
    assert "damaged" in caplog.text
    for file in files:
        file.unlink()
        file.mkdir()
    with pytest.raises(DiskError, match=r"cannot read .*\.device"):
        simulate(resumed_scenario(tmp_path / "out", 3), tmp_path / "out", backend="ray", resume=True)
