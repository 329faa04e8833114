"""A federation over its gateway as processes, as an operator starts them: keys, `serve`, and devices that `run`."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from board import BOARD
from flower_processes import BIN, end, logs

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Fleet:
    """Devices by name, and where they find their gateway. Device number i holds share i of the data."""

    folder: Path
    names: Sequence[str]
    port: int
    host: str = LOOPBACK
    task: str = "digits"
    import_from: Path | None = None
    options: Mapping[str, float | str] = field(default_factory=dict)
    """Keyword arguments of the task."""

    def make_keys(self) -> None:
        """Write the keys of all, and the profile of the devices."""
        for arguments in (("init", "pki"), ("server", "pki", self.host), ("device", "pki", *self.names)):
            command = [BIN / "slimfleet-coordinator", "pki", *arguments]
            subprocess.run(command, cwd=self.folder, check=True, timeout=120, stdout=subprocess.DEVNULL)
        (self.folder / "board.json").write_text(json.dumps(asdict(BOARD)))

    def task_table(self) -> str:
        """`[task]` of the server's settings, in one line."""
        options = ", ".join(f"{key} = {json.dumps(value)}" for key, value in self.options.items())
        found = "" if self.import_from is None else f', import_from = ["{self.import_from}"]'
        return f'{{name = "{self.task}", options = {{{options}}}{found}}}'

    def serving(self, settings: Path) -> list[str]:
        """The command of the server."""
        return [str(BIN / "slimfleet-coordinator"), "serve", str(settings), f"--port={self.port}"]

    def device(self, number: int, state: Path, *more: str) -> list[str]:
        """The command of a device, which keeps what lasts in the folder `state`."""
        name = self.names[number]
        said = [f"--option={key}={value}" for key, value in self.options.items()]
        said += [] if self.import_from is None else [f"--import-from={self.import_from}"]
        return [
            str(BIN / "slimfleet-device"), "run", self.task, f"--gateway={self.host}:{self.port}",
            f"--keys={self.folder / 'pki' / 'devices' / name}", f"--profile={self.folder / 'board.json'}",
            f"--state={state}", f"--partition-id={number}", f"--num-partitions={len(self.names)}",
            "--meter=none", "--threads=1", *said, *more,
        ]  # fmt: skip


def started(command: Sequence[str], log: Path, **variables: str) -> subprocess.Popen[bytes]:
    """A process in a session of its own, which adds what it says to the file `log`."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | variables,
        )


@contextmanager
def at_work(command: Sequence[str], log: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """The same, ended with the block."""
    process = started(command, log, **variables)
    try:
        yield process
    finally:
        end(process)


def ended(
    server: subprocess.Popen[bytes],
    devices: Sequence[subprocess.Popen[bytes]],
    patience_s: float,
    folder: Path,
) -> None:
    """Wait for the end of a run; SystemExit with the logs of `folder` where it fails, or a device ends before it."""
    until = time.monotonic() + patience_s
    while server.poll() is None:
        if time.monotonic() > until or any(each.poll() is not None for each in devices):
            raise SystemExit(f"the run has not ended\n{logs(folder)}")
        time.sleep(0.05)
    if server.returncode != 0:
        raise SystemExit(f"the run has failed\n{logs(folder)}")
