"""Planes: arrays to bytes and back, bit for bit, by the native coder or without it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.codec.native.library import load
from slimfleet.compression.errors import PayloadError
from slimfleet.compression.packing import portable_planes

BLOCK = 1 << 16
"""Elements that share frequencies."""
MOST_ELEMENTS_A_BYTE = BLOCK // 2
"""A block takes two bytes at least."""
_CORRUPT = -3

Bytes = NDArray[np.uint8]


def pack_planes(data: Bytes, width: int, *, floats: bool) -> bytes:
    """Elements of `width` bytes (1, 2, 4, 8), little-endian in a contiguous array of bytes, by planes."""
    library = load()
    if library is None:
        return portable_planes.pack(data, width, floats=floats)
    count = data.size // width
    room = np.empty(2 * (data.size + count // 8 + 64 * (count // BLOCK + 1)), np.uint8)
    size = library.slimcodec_pack_planes(
        data.ctypes.data, count, width, int(floats), room.ctypes.data, room.size
    )
    if size < 0:
        raise MemoryError("the native coder had no memory")
    return room[:size].tobytes()


def unpack_planes(data: bytes | memoryview, out: Bytes, width: int, *, floats: bool) -> None:
    """Read into `out`, a contiguous array of bytes that says how many there are.

    Raises PayloadError("entropy") where the data are not what was packed.
    """
    received = np.frombuffer(data, np.uint8)
    library = load()
    if library is None:
        portable_planes.unpack(received, out, width, floats=floats)
        return
    status = library.slimcodec_unpack_planes(
        received.ctypes.data, received.size, out.ctypes.data, out.size // width, width, int(floats)
    )
    if status == _CORRUPT:
        raise PayloadError("entropy", "entropy-coded bytes are not what was encoded")
    if status:
        raise MemoryError("the native coder had no memory")
