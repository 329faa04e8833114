"""Memory: the peak of this process, and its reset."""

from __future__ import annotations

import sys
from pathlib import Path

PROC = Path("/proc")


def peak_memory_bytes(proc: Path = PROC) -> int:
    """The largest resident set that this process has had, in bytes.

    Linux has it as VmHWM in /proc/self/status, since the last reset; elsewhere getrusage has it, since the start.
    """
    peak = kibibytes(proc / "self" / "status", "VmHWM:")
    return _rusage_peak() if peak is None else peak * 1024


def reset_peak_memory(proc: Path = PROC) -> bool:
    """Reset the peak to what is resident now, so that a round has its own peak.

    Returns whether the kernel could (Linux: 5 written to /proc/self/clear_refs, see proc_pid_clear_refs(5)).
    """
    try:
        (proc / "self" / "clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def kibibytes(path: Path, name: str) -> int | None:
    """The value of a line `name  1234 kB`."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith(name)), None)
    except (OSError, ValueError, IndexError):
        return None


def _rusage_peak() -> int:
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
