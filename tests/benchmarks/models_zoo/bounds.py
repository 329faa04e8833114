"""Bounds of a process: processor time of a stage, memory of the whole."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

MEMORY_BYTES = 9_000_000_000
"""Address space of one process: torch and the libraries take one of these nine gigabytes."""


class OutOfTime(BaseException):
    """A stage used up its processor time. No Exception: libraries catch those and go on."""


def bound_memory() -> None:
    """An allocation beyond the bound fails in this process instead of filling the machine."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the body once this process has spent so much processor time in it."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
