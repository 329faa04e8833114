"""A process with all that it has started, whatever sessions they are in."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")


def descendants(pid: int, proc: Path = PROC) -> list[int]:
    """The processes that a process has started, and those that they have."""
    children: dict[int, list[int]] = {}
    for path in proc.glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            # The name of the command, in parentheses, may hold anything; the parent is the second field behind it.
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found, left = [], [pid]
    while left:
        own = children.get(left.pop(), [])
        found += own
        left += own
    return found


def kill_tree(pid: int) -> None:
    """SIGKILL for a process of ours and its descendants; each is stopped first, so that none starts another."""
    stopped: list[int] = []
    while new := [each for each in (pid, *descendants(pid)) if each not in stopped]:
        for each in new:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGSTOP)
        stopped += new
    for each in stopped:
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
