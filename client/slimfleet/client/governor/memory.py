"""Memory limits: what this process can have, by its control groups and by what the system has left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from slimfleet.client.meters.memory import kibibytes
from slimfleet.client.meters.sysfs import read_number, read_word
from slimfleet.compression import Budget

__all__ = ["MEMORY_RESERVE_BYTES", "free_memory_bytes", "within_memory"]

MEMORY_RESERVE_BYTES = 32 * 2**20
"""Left to the system: with less, it takes the pages of running programs away."""

UNLIMITED_BYTES = 2**60
"""cgroup v1 says so with a number just below 2**63."""


def free_memory_bytes(root: Path = Path("/"), reserve_bytes: int = 0) -> int | None:
    """Memory that this process can have, in bytes: what is left for it, and what it holds already; None where no file
    below `root` tells.

    It is the least of what is left in each control group (v1 and v2) that the process is in, and of what the system
    has left (MemAvailable), less `reserve_bytes`. Pages of files count as left: the kernel drops them on demand. What
    the process holds is RssAnon in /proc/self/status.
    """
    proc = root / "proc"
    available = kibibytes(proc / "meminfo", "MemAvailable:")
    held = 1024 * (kibibytes(proc / "self" / "status", "RssAnon:") or 0)
    left = list(_left_in_groups(root))
    if available is not None:
        left.append(1024 * available - reserve_bytes)
    return max(min(left) + held, 0) if left else None


def within_memory(budget: Budget, free_bytes: int | None) -> Budget:
    """The budget, with no more memory than there is."""
    if free_bytes is None or (budget.memory_bytes is not None and budget.memory_bytes <= free_bytes):
        return budget
    return replace(budget, memory_bytes=free_bytes)


def _left_in_groups(root: Path) -> Iterator[int]:
    """What each limited group and each of its ancestors has left."""
    for line in (read_word(root / "proc" / "self" / "cgroup") or "").splitlines():
        _, controllers, name = (*line.split(":", 2), "", "")[:3]
        if controllers == "":
            files = root / "sys" / "fs" / "cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            files = (
                root / "sys" / "fs" / "cgroup" / "memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            )
        else:
            continue
        for folder in _folders(files[0], name):
            left = _left(folder, *files[1:])
            if left is not None:
                yield left


def _folders(mount: Path, name: str) -> Iterator[Path]:
    """The folder of a group and those of its ancestors. In a container only the group's own is there, as the mount."""
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", "..")]
    for depth in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:depth])


def _left(folder: Path, limit_file: str, used_file: str) -> int | None:
    """The limit less what is in use, pages of files left out; None where there is no limit ("max", no file)."""
    limit = read_number(folder / limit_file, 1)
    if limit is None or limit >= UNLIMITED_BYTES:
        return None
    used = read_number(folder / used_file, 1) or 0
    pages = _pages_of_files(folder / "memory.stat")
    return int(limit - max(used - pages, 0))


def _pages_of_files(stat: Path) -> int:
    """Bytes in the page cache of a group and those below it. v1 has the sums under `total_`."""
    values = dict(line.split(" ", 1) for line in (read_word(stat) or "").splitlines() if " " in line)
    names = ("inactive_file", "active_file")
    prefix = "total_" if "total_inactive_file" in values else ""
    return sum(int(values.get(prefix + name, 0)) for name in names)
