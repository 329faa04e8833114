"""SIGTERM under Ray: it ends the process in order, where Ray's native part would print a stack and abort."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["sigterm_ends", "sigterm_waits"]

_TERMINATED = 128 + signal.SIGTERM
"""Exit code, as a shell gives it."""


@contextmanager
def sigterm_ends() -> Iterator[None]:
    """SIGTERM within the block raises SystemExit, unless somebody handles it already or this is not the main thread.

    It is raised again at the end of the block: where the signal comes in foreign code, the exception may be lost.
    """
    before = signal.getsignal(signal.SIGTERM)
    if before is not signal.SIG_DFL or threading.current_thread() is not threading.main_thread():
        yield
        return
    terminated = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal terminated
        terminated = True
        sys.exit(_TERMINATED)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        if terminated:
            raise SystemExit(_TERMINATED)


@contextmanager
def sigterm_waits() -> Iterator[None]:
    """Let SIGTERM wait while Ray starts, and keep its present handler.

    Ray puts two handlers in its place, the native one long before `ray.init` returns to where another can be set.
    Processes that are started meanwhile are not to inherit that the signal waits.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGTERM)
    _starting.set()
    try:
        yield
    finally:
        _starting.clear()
        signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGTERM)


_SIGTERM = {signal.SIGTERM}
_starting = threading.Event()


def _unblock() -> None:
    if _starting.is_set():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGTERM)


os.register_at_fork(after_in_child=_unblock)
