"""Library of the native coder: found and loaded; nothing is compiled here."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from slimfleet.compression.codec.native.build import BESIDE, LIBRARY_VARIABLE, PORTABLE_VARIABLE, WAYS_OUT
from slimfleet.compression.errors import BadInput

ABI = 5
"""What `slimcodec_abi()` must answer; the same number as SLIMCODEC_ABI in slimcodec.h."""


@functools.cache
def load() -> ctypes.CDLL | None:
    """The native coder's library, or None where there is none and the portable coder takes over.

    Looked up once, see `find`. Raises BadInput when there is a library that cannot be used: a stale or
    foreign file is a mistake, and falling back silently would hide it.
    """
    path = find(os.environ)
    return None if path is None else open_library(path)


def require() -> ctypes.CDLL:
    """`load`, where the library is required; raises BadInput that says how to get it."""
    library = load()
    if library is None:
        raise BadInput(f"slimfleet's native coder is not installed: {WAYS_OUT}")
    return library


def find(environ: Mapping[str, str], beside: Path = BESIDE) -> Path | None:
    """Path of the library that the environment selects, or None.

    SLIMFLEET_NATIVE_LIBRARY names one; it must exist. SLIMFLEET_PORTABLE=1 means none. Without either it is the file
    that the installation put beside this module, if it did.
    """
    if named := environ.get(LIBRARY_VARIABLE):
        return Path(named)
    if environ.get(PORTABLE_VARIABLE, "0") not in ("", "0"):
        return None
    return beside if beside.exists() else None


def open_library(path: Path) -> ctypes.CDLL:
    """The library at `path`; raises BadInput when it does not load, is not slimfleet's or has another ABI."""
    try:
        library = ctypes.CDLL(str(path))
        library.slimcodec_abi.argtypes = []
        library.slimcodec_abi.restype = ctypes.c_uint32
        abi = library.slimcodec_abi()
    except (OSError, AttributeError) as error:
        raise BadInput(
            f"the native coder {path} cannot be loaded on {sys.platform}: {error}; {WAYS_OUT}"
        ) from error
    if abi != ABI:
        raise BadInput(f"the native coder {path} has ABI {abi}, this slimfleet needs {ABI}; {WAYS_OUT}")
    _declare(library)
    return library


def _declare(library: ctypes.CDLL) -> None:
    """Arguments and results, as slimcodec.h has them."""
    pointer, size, number, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32, ctypes.c_float
    declared = {
        "encode": (size, [pointer, size, number, real, pointer, size]),
        "decode": (number, [pointer, size, number, pointer, size]),
        "start_class": (number, [pointer, size]),
        "expected_class": (number, [pointer, size]),
        "dequantise": (None, [pointer, size, real, pointer, number, pointer]),
        "pack_planes": (size, [pointer, size, number, number, pointer, size]),
        "unpack_planes": (number, [pointer, size, pointer, size, number, number]),
        "tally": (None, [pointer, pointer, real, size, pointer]),
        "quantise": (
            size,
            [pointer, size, number, real, pointer, real, real, pointer, size, pointer],
        ),
        "spread": (None, [pointer, size, pointer, pointer]),
    }
    for name, (result, arguments) in declared.items():
        function = getattr(library, f"slimcodec_{name}")
        function.restype, function.argtypes = result, arguments
