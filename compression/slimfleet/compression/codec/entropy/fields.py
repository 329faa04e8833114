"""Fields of a body: a cursor over received bytes that cannot run past their end, and the fields of a grid."""

from __future__ import annotations

import struct

import numpy as np

from slimfleet.compression.codec.quantise.grid import LEAST_UNIT, Grid
from slimfleet.compression.errors import PayloadError


class Reader:
    """Takes bytes from the front; every take is checked, none copies."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> memoryview:
        """The next `size` bytes; raises PayloadError("counts") when there are fewer."""
        end = self._at + size
        if end > len(self._data):
            raise PayloadError("counts", f"{size} bytes needed where {len(self._data) - self._at} are left")
        view = self._data[self._at : end]
        self._at = end
        return view

    @property
    def left(self) -> int:
        """Bytes that are left."""
        return len(self._data) - self._at

    def byte(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def unpack(self, layout: struct.Struct) -> tuple[int | float, ...]:
        """The next fields of a fixed layout."""
        return layout.unpack(self.take(layout.size))

    def rest(self) -> memoryview:
        """Everything that is left."""
        return self.take(len(self._data) - self._at)

    def finish(self) -> None:
        """Raise PayloadError("counts") unless everything was taken."""
        if self._at != len(self._data):
            raise PayloadError("counts", f"{len(self._data) - self._at} bytes are left over")


_ONE_STEP = 0x80
_SHIFT = 0x70
_OFFSETS = 0x0F
_MAX_SHIFT = 3
MAX_OFFSETS = 15


def write_grid(grid: Grid) -> bytes:
    """A grid as bytes."""
    how = (_ONE_STEP if len(grid.units) == 1 else 0) | grid.vector_shift << 4 | len(grid.offsets)
    return bytes([how]) + np.array(grid.units, "<f4").tobytes() + np.array(grid.offsets, "<i2").tobytes()


def read_grid(reader: Reader, weights: int) -> Grid:
    """The grid of `weights` tensors. Raises PayloadError: counts, grid or nonfinite."""
    how = reader.byte()
    shift = (how & _SHIFT) >> 4
    if shift > _MAX_SHIFT:
        raise PayloadError("grid", f"vector shift {shift}, the limit is {_MAX_SHIFT}")
    units = np.frombuffer(reader.take(4 * (1 if how & _ONE_STEP else weights)), "<f4")
    if not np.isfinite(units).all():
        raise PayloadError("nonfinite", "a quantiser step is not finite")
    if (units < LEAST_UNIT).any():
        raise PayloadError("grid", "a quantiser step is zero, negative or too small")
    offsets = np.frombuffer(reader.take(2 * (how & _OFFSETS)), "<i2")
    return Grid(tuple(map(float, units)), tuple(map(int, offsets)), shift)
