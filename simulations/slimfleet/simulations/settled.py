"""Settled heap: what a process has made before its work begins is left alone by the garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["settled_heap"]


@contextmanager
def settled_heap() -> Iterator[None]:
    """Keep what is there now from being looked through inside the block: torch and its like are half a million objects,
    and to look through them takes as long as a round of a small model."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
