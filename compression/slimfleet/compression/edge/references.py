"""References: `module:object`, how a setting names code of the user's own."""

from __future__ import annotations

import importlib
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from slimfleet.compression.checked_task import BadTask, cause
from slimfleet.compression.errors import BadInput

IMPORT_LIMIT_S = 60.0
"""Longest time for the import of a module: it holds code, and data are read by its members."""


def resolve(reference: str) -> object:
    """Import `module:object`.

    Raises BadInput when the reference is not of that form or cannot be imported.
    """
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute:
        raise BadInput(
            f"{reference!r} is not of the form module:object (for example my_package.my_task:MyTask)"
        )
    try:
        with _at_most(IMPORT_LIMIT_S):
            return cast(object, getattr(importlib.import_module(module_name), attribute))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise BadTask(f"cannot load {reference!r}: {cause(error)}") from error


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError where what is inside takes longer; only the main thread has an alarm clock."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: object) -> None:
        raise TimeoutError(f"its import took longer than {seconds:g} s")

    handler = signal.signal(signal.SIGALRM, ring)
    remaining = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again each second: a module may catch it
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *remaining)
        signal.signal(signal.SIGALRM, handler)
