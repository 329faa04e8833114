"""Bindings of the native coder: numpy arrays over ctypes to `slimcodec.h`, with every size checked here."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.codec.native.library import require
from slimfleet.compression.errors import PayloadError

Levels = NDArray[np.int32]
NativePreset = Literal["fast", "small"]

LARGEST_LEVEL = 32_767
"""Largest magnitude of a level; SLIMCODEC_MAX_LEVEL of slimcodec.h."""
MAX_CLASS = 63
FARTHEST = 1 << 20
"""Largest magnitude of a guess, in levels * 256."""

PRESETS: dict[NativePreset, int] = {"fast": 0, "small": 1}
_NO_ROOM = -2
_CORRUPT = -3
_BYTES_A_LEVEL = (4, 36)
"""What ordinary levels take, and the most that any can: 25 bits of up to 11 bits each."""


@dataclass(frozen=True, slots=True)
class Part:
    """One tensor for the coder, as a matrix: rows are the first dimension, columns all others."""

    shape: tuple[int, ...]
    start: int
    """Class of its mean magnitude, 0..63; 0 says that it is all zeros."""
    states: int = 1
    """Of the trellis that its levels follow: 8, or 1 for none."""
    values: NDArray[np.float32] | None = None
    """What to quantise, in steps."""
    guess: Levels | None = None
    """What both ends expect of the levels, in levels * 256."""


class Tensor(ctypes.Structure):
    """`slimcodec_tensor`."""

    _fields_ = (
        ("rows", ctypes.c_int64),
        ("cols", ctypes.c_int64),
        ("kernel", ctypes.c_int64),
        ("states", ctypes.c_int32),
        ("start", ctypes.c_int32),
        ("levels", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("guess", ctypes.c_void_p),
    )


def encode_parts(
    parts: Sequence[Part], levels: Sequence[Levels], preset: NativePreset, price: float = 0.0
) -> bytes:
    """Code `levels`, int32 C-order arrays, one for each part.

    Parts with values are quantised first: their levels are written into the arrays, at the price of `price` squared
    steps a bit. Raises ValueError for a level beyond LARGEST_LEVEL.
    """
    if any(largest_magnitude(array) > LARGEST_LEVEL for array in levels):
        raise ValueError(f"a level beyond {LARGEST_LEVEL}: take a coarser step")
    tensors, encode = _tensors(parts, levels, preset), require().slimcodec_encode

    def write(room: int, capacity: int) -> int:
        return int(encode(tensors, len(parts), PRESETS[preset], price, room, capacity))

    return written(write, sum(array.size for array in levels))


def written(write: Callable[[int, int], int], levels: int) -> bytes:
    """What `write` codes of so many levels, given the address and the size of a room for it, as slimcodec.h has it."""
    for bytes_a_level in _BYTES_A_LEVEL:
        room = np.empty(64 + bytes_a_level * levels, np.uint8)
        size = write(room.ctypes.data, room.size)
        if size >= 0:
            return room[:size].tobytes()
        if size != _NO_ROOM:
            break
    raise MemoryError("the native coder had no memory")


def decode_parts(parts: Sequence[Part], data: bytes | memoryview, preset: NativePreset) -> list[Levels]:
    """The levels of each part. Garbage in gives garbage out, of the parts' sizes.

    Raises PayloadError("entropy") when the bytes do not end as they should or hold a level beyond LARGEST_LEVEL.
    """
    levels = [np.empty(part.shape, np.int32) for part in parts]
    received = np.frombuffer(data, np.uint8)
    status = require().slimcodec_decode(
        _tensors(parts, levels, preset), len(parts), PRESETS[preset], received.ctypes.data, received.size
    )
    if status == _CORRUPT:
        raise PayloadError("entropy", "entropy-coded bytes are not what was encoded")
    if status:
        raise MemoryError("the native coder had no memory")
    return levels


def start_class(levels: Levels) -> int:
    """Class of the mean magnitude of levels, for `Part.start`."""
    return int(require().slimcodec_start_class(address(levels, np.int32, levels.shape), levels.size))


def expected_class(values: NDArray[np.float32]) -> int:
    """Class of the levels that `values` (in steps) will have."""
    return int(require().slimcodec_expected_class(address(values, np.float32, values.shape), values.size))


def dequantise_levels(levels: Levels, unit: np.float32, offsets: NDArray[np.int16]) -> NDArray[np.float32]:
    """`sign * float32((256 * |level| + offset) * unit)`, offset = offsets[min(|level|, n) - 1], 0 without offsets."""
    flat = np.asarray(levels, np.int32, order="C")
    out = np.empty(levels.shape, np.float32)
    require().slimcodec_dequantise(
        flat.ctypes.data,
        flat.size,
        unit,
        address(offsets, np.int16, (offsets.size,)),
        offsets.size,
        out.ctypes.data,
    )
    return out


def _tensors(parts: Sequence[Part], levels: Sequence[Levels], preset: NativePreset) -> ctypes.Array[Tensor]:
    tensors = (Tensor * len(parts))()
    for tensor, part, array in zip(tensors, parts, levels, strict=True):
        _check(part, preset)
        tensor.rows, tensor.cols, tensor.kernel = as_matrix(part.shape)
        tensor.states, tensor.start = part.states, part.start
        tensor.levels = address(array, np.int32, part.shape)
        tensor.values = None if part.values is None else address(part.values, np.float32, part.shape)
        tensor.guess = None if part.guess is None else address(part.guess, np.int32, part.shape)
    return tensors


def as_matrix(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(rows, columns, elements of a convolution's window); a vector is one row."""
    if len(shape) < 2:
        return 1, prod(shape), 1
    return shape[0], prod(shape[1:]), prod(shape[2:])


def _check(part: Part, preset: NativePreset) -> None:
    """Check what C takes on trust, besides its arrays."""
    if not 0 <= part.start <= MAX_CLASS:
        raise ValueError(f"start class {part.start}, the limit is {MAX_CLASS}")
    if part.states not in ((1, 8) if preset == "small" else (1,)):
        raise ValueError(f"a trellis of {part.states} states under the {preset} preset")
    if part.guess is not None:
        checked_guess(part.guess)


def checked_guess(guess: Levels) -> Levels:
    """A guess, checked to lie within what C adds up."""
    if largest_magnitude(guess) > FARTHEST:
        raise ValueError(f"a guess beyond {FARTHEST}")
    return guess


def address(array: NDArray[np.generic], dtype: type[np.generic], shape: tuple[int, ...]) -> int:
    """Address of the elements of an array, checked to be what C takes them for."""
    if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
        raise ValueError(f"{array.dtype}{list(array.shape)} for {dtype.__name__}{list(shape)} in C order")
    return array.ctypes.data


def largest_magnitude(array: Levels) -> int:
    """0 for an array without elements; numpy's abs overflows on the smallest integer."""
    return max(int(array.max()), -int(array.min())) if array.size else 0
