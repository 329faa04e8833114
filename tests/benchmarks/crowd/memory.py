"""Resident memory of a process over time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median

EVERY_S = 0.25

Samples = list[tuple[float, float]]
"""Moments, in seconds since 1970, with megabytes."""


@contextmanager
def watched(pid: int) -> Iterator[Samples]:
    """Samples of a process, added until the end of the block or of the process."""
    found: Samples = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(EVERY_S) and (megabytes := resident_mb(pid)) is not None:
            found.append((time.time(), megabytes))

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield found
    finally:
        stop.set()
        watching.join()


def resident_mb(pid: int, proc: Path = Path("/proc")) -> float | None:
    """Megabytes (10^6 bytes); None where the process has ended."""
    try:
        lines = (proc / str(pid) / "status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("VmRSS:")]
    return kilobytes[0] * 1_024 / 1e6 if kilobytes else None


def of_rounds(samples: Samples, closed_at: Sequence[float]) -> list[float]:
    """The median of each round but the first, whose begin no event tells, MB."""
    return [
        median([value for moment, value in samples if begin <= moment < end] or [float("nan")])
        for begin, end in pairwise(closed_at)
    ]
