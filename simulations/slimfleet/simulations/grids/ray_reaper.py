"""Reaper of a Ray that lost its driver: `ray_reaper.py FOLDER`, which waits until its standard input is closed.

It then kills every process that has FOLDER in its environment variable `MARK`, and removes the folder. Ray's own
daemons end with their driver, but those that are just being started when it is killed would stay; so without the word
`DONE` on its standard input, it waits for late ones. Standard library only: it starts in a moment.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

MARK = "SLIMFLEET_RAY"
DONE = b"done"
_QUIET_S = 2.0
_AT_MOST_S = 30.0


def marked(folder: str) -> list[int]:
    """Processes that a Ray in this folder has started. Where there is no /proc, as on macOS, none is found."""
    wanted = f"{MARK}={folder}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile, or another user's
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


def reap(folder: str, quiet_s: float) -> None:
    """Kill what is marked until nothing has come for so long, and remove the folder."""
    began = quiet_since = time.monotonic()
    while True:
        for pid in marked(folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            quiet_since = time.monotonic()
        if time.monotonic() - quiet_since >= quiet_s or time.monotonic() - began > _AT_MOST_S:
            break
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    reap(sys.argv[1], 0.0 if sys.stdin.buffer.read() == DONE else _QUIET_S)
