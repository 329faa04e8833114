"""Sections of a slim file: elements or levels to bytes, and strictly back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.codec.entropy.fields import Reader
from slimfleet.compression.codec.native.bindings import (
    LARGEST_LEVEL,
    MAX_CLASS,
    Levels,
    NativePreset,
    Part,
    decode_parts,
    encode_parts,
    largest_magnitude,
    start_class,
)
from slimfleet.compression.codec.native.build import WAYS_OUT
from slimfleet.compression.codec.native.library import load
from slimfleet.compression.errors import PayloadError
from slimfleet.compression.packing.dtypes import Dtype
from slimfleet.compression.packing.planes import MOST_ELEMENTS_A_BYTE, pack_planes, unpack_planes
from slimfleet.compression.packing.records import Piece, Section

_TRELLIS = 0x80
_PRESET: dict[Section, NativePreset] = {Section.SMALL: "small", Section.FAST: "fast"}
_CODER: dict[NativePreset, Section] = {"small": Section.SMALL, "fast": Section.FAST}
MANY_BITS = 2
"""Bits a level from which on planes are tried too: contexts learn a large alphabet slowly."""


@dataclass(frozen=True, slots=True)
class Coded:
    """A section as it is written."""

    coder: Section
    data: bytes


def code_elements(array: NDArray[Any], dtype: Dtype) -> Coded:
    """A contiguous array of any shape, as `dtype` holds it, bit for bit."""
    flat = array.reshape(-1).view(np.uint8) if array.size else np.empty(0, np.uint8)
    return Coded(Section.PLANES, pack_planes(flat, dtype.itemsize // dtype.words, floats=dtype.floats))


def read_elements(data: memoryview, dtype: Dtype, count: int) -> NDArray[Any]:
    """`count` elements, as `dtype` holds them. Raises PayloadError: counts or entropy."""
    _refuse_more(data, count * dtype.words)
    out = np.empty(count, dtype.held)
    width = dtype.itemsize // dtype.words
    unpack_planes(data, out.view(np.uint8), width, floats=dtype.floats)
    if dtype.name == "bool" and out.view(np.uint8).max(initial=0) > 1:
        raise PayloadError("counts", "a bool that is neither 0 nor 1")
    return out


def code_levels(
    parts: Sequence[Part], levels: Sequence[Levels], preset: NativePreset, price: float = 0.0
) -> Coded:
    """Levels of tensors, int32 in C order, as `encode_parts` takes them; parts with values are quantised first.

    Where that is smaller, where a level is beyond `LARGEST_LEVEL`, or without the native coder: by planes.
    """
    if load() is None or any(largest_magnitude(array) > LARGEST_LEVEL for array in levels):
        return _as_planes(levels)
    stream = encode_parts(parts, levels, preset, price)
    heads = bytes(part.start | _TRELLIS * (part.states > 1) for part in parts)
    coded = Coded(_CODER[preset], heads + stream)
    if 8 * len(stream) < MANY_BITS * sum(array.size for array in levels):
        return coded
    return min(coded, _as_planes(levels), key=lambda each: len(each.data))


def read_levels(data: memoryview, coder: Section, pieces: Sequence[Piece]) -> list[Levels]:
    """Levels of each piece, int32 in `Piece.shape`.

    Raises PayloadError: counts, entropy, or version where the native coder is needed and missing.
    """
    if coder is Section.LEVELS:
        count = sum(piece.size for piece in pieces)
        _refuse_more(data, count)
        folded = np.empty(count, "<u4")
        unpack_planes(data, folded.view(np.uint8), 4, floats=False)
        flat = _unfolded(folded)
        ends = np.cumsum([piece.size for piece in pieces])[:-1]
        return [part.reshape(p.shape) for part, p in zip(np.split(flat, ends), pieces, strict=True)]
    if load() is None:
        raise PayloadError(
            "version", f"the native coder wrote this, and it is not installed here: {WAYS_OUT}"
        )
    reader, preset = Reader(data), _PRESET[coder]
    heads = bytes(reader.take(len(pieces)))
    parts = [_part_of(piece, head, preset) for piece, head in zip(pieces, heads, strict=True)]
    return decode_parts(parts, reader.rest(), preset)


def part_of(levels: Levels) -> Part:
    """What the coder needs to know about levels that are settled."""
    start = 0 if load() is None or not levels.size else start_class(levels)
    return Part(levels.shape, start)


def _part_of(piece: Piece, head: int, preset: NativePreset) -> Part:
    start, trellis = head & ~_TRELLIS, bool(head & _TRELLIS)
    if start > MAX_CLASS or (start and not piece.size):
        raise PayloadError("entropy", f"a start class that tensor {piece.record.name!r} cannot have")
    if trellis and (preset == "fast" or len(piece.shape) < 2):
        raise PayloadError("entropy", f"tensor {piece.record.name!r} cannot follow the trellis")
    return Part(piece.shape, start, 8 if trellis else 1)


def _as_planes(levels: Sequence[Levels]) -> Coded:
    flat = np.concatenate([array.reshape(-1) for array in levels]) if levels else np.empty(0, np.int32)
    return Coded(Section.LEVELS, pack_planes(_folded(flat).view(np.uint8), 4, floats=False))


def _folded(levels: Levels) -> NDArray[np.uint32]:
    """0, -1, 1, -2 .. as 0, 1, 2, 3 .., so that small magnitudes have few bytes."""
    return ((levels << 1) ^ (levels >> 31)).astype("<u4")


def _unfolded(folded: NDArray[np.uint32]) -> Levels:
    return ((folded >> np.uint32(1)) ^ (np.uint32(0) - (folded & np.uint32(1)))).astype(np.int32)


def _refuse_more(data: memoryview, count: int) -> None:
    if count > MOST_ELEMENTS_A_BYTE * len(data):
        raise PayloadError("counts", f"{count:,} elements in a section of {len(data):,} bytes")
