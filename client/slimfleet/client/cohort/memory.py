"""Memory that training frees stays with the process."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

__all__ = ["keep_freed_memory"]

KEPT_BYTES = 2**28
"""Free memory that stays with the process, at most."""

LARGEST_BYTES = 2**25
"""The largest piece that is kept."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h."""


@cache
def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next step, in this process from now on; nothing with another C library.

    It would hand activations back to the system after each step. To have zeroed pages again costs up to a fifth of the
    time of a network with large activations.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, LARGEST_BYTES)
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
