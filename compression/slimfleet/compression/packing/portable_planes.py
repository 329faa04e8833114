"""Portable planes: what `planes.c` does, in numpy, for machines without the native coder. The same bytes.

Interleaved states are what makes it bearable: a step of numpy codes one symbol of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.errors import PayloadError

Bytes = NDArray[np.uint8]
Words = NDArray[np.uint64]

_BLOCK = 1 << 16
_SPARSE, _DELTA, _CODED = 1, 2, 0x80
_BITS = 12
_TOTAL = 1 << _BITS
_LEAST = 1 << 16
_MOST_LANES = 5


def pack(data: Bytes, width: int, *, floats: bool) -> bytes:
    """As `planes.pack_planes`."""
    words = _rotated(data.view(f"<u{width}").astype(np.uint64), width, 1 if floats else 0)
    blocks = (words[i : i + _BLOCK] for i in range(0, words.size, _BLOCK))
    return b"".join(_put_block(block, width, floats) for block in blocks)


def unpack(data: Bytes, out: Bytes, width: int, *, floats: bool) -> None:
    """As `planes.unpack_planes`."""
    reader = _Reader(data)
    elements = out.view(f"<u{width}")
    for i in range(0, elements.size, _BLOCK):
        block = elements[i : i + _BLOCK]
        words = _take_block(reader, block.size, width, floats)
        block[:] = _rotated(words, width, 8 * width - 1 if floats else 0).astype(block.dtype)
    if reader.left:
        raise _corrupt()


def _rotated(words: Words, width: int, by: int) -> Words:
    """Words of `width` bytes rotated left, so that the sign of a float comes last and its exponent first."""
    bits = 8 * width
    if by % bits == 0:
        return words
    mask = np.uint64((1 << bits) - 1)
    return (words << np.uint64(by) | words >> np.uint64(bits - by)) & mask


def _put_block(words: Words, width: int, floats: bool) -> bytes:
    plain = _put_words(words, width, 0)
    if floats or width == 1 or words.size < 2:
        return plain
    mask = np.uint64((1 << 8 * width) - 1)
    differences = np.diff(words, prepend=np.uint64(0)) & mask
    return min(plain, _put_words(differences, width, _DELTA), key=len)


def _put_words(words: Words, width: int, how: int) -> bytes:
    zeros, mask = int((words == 0).sum()), b""
    if words.size >= 16 and zeros < words.size and zeros * 8 >= words.size:
        how |= _SPARSE
        mask = _put_plane(np.packbits(words != 0, bitorder="little"))
        words = words[words != 0]
    planes = [(words >> np.uint64(8 * p)).astype(np.uint8) for p in range(width)]
    present = sum(1 << p for p, plane in enumerate(planes) if plane.any())
    return bytes([how, present]) + mask + b"".join(_put_plane(plane) for plane in planes if plane.any())


def _put_plane(symbols: Bytes) -> bytes:
    histogram = np.bincount(symbols, minlength=256)
    used = np.flatnonzero(histogram)
    first, apart = int(used[0]), int(np.bitwise_or.reduce(used - used[0]))
    shift = (apart & -apart).bit_length() - 1 if apart else 0
    span = (int(used[-1]) - first) >> shift
    bits = span.bit_length()
    packed = 2 + (symbols.size * bits + 7) // 8
    squares = int((histogram.astype(np.uint64) ** 2).sum())
    if bits and squares * 50 > (symbols.size**2 >> bits) * 51:
        counts = histogram[first : first + (span << shift) + 1 : 1 << shift]
        coded = _coded(symbols, first, shift, counts)
        if len(coded) < packed:
            return coded
    if bits == 8:
        return bytes([8, 0]) + symbols.tobytes()
    values = (symbols - np.uint8(first)) >> np.uint8(shift)
    spread = np.unpackbits(values[:, None], axis=1, count=bits, bitorder="little")
    return bytes([shift << 4 | bits, first]) + np.packbits(spread, bitorder="little").tobytes()


@dataclass(frozen=True, slots=True)
class _Table:
    frequency: NDArray[np.uint64]
    start: NDArray[np.uint64]


def _code_of(count: int) -> int:
    return count if count < 8 else 8 * (count.bit_length() - 3) + (count >> (count.bit_length() - 4)) - 8


def _table_of(codes: Bytes) -> _Table:
    """Frequencies that sum to 4096. Raises PayloadError where fewer than two symbols have one."""
    weights = [c if c < 8 else (8 + c % 8) << (c // 8 - 1) for c in map(int, codes)]
    used, total = sum(w > 0 for w in weights), sum(weights)
    if used < 2:
        raise _corrupt()
    frequency = [1 + w * (_TOTAL - used) // total if w else 0 for w in weights]
    frequency[weights.index(max(weights))] += _TOTAL - sum(frequency)
    array = np.array(frequency, np.uint64)
    return _Table(array, np.cumsum(array) - array)


def _lanes_of(count: int) -> int:
    return min(max((count >> 10).bit_length(), 0), _MOST_LANES)


def _coded(symbols: Bytes, first: int, shift: int, counts: NDArray[np.int64]) -> bytes:
    codes = np.array([_code_of(int(count)) for count in counts], np.uint8)
    log_lanes = _lanes_of(symbols.size)
    table, lanes = _table_of(codes), 1 << log_lanes
    which = (symbols - np.uint8(first)) >> np.uint8(shift)
    state, words = np.full(lanes, _LEAST, np.uint64), []
    for i in range((symbols.size - 1) // lanes * lanes, -1, -lanes):
        row = which[i : i + lanes]
        f, x = table.frequency[row], state[: row.size]
        full = x >= f << np.uint64(20)
        words.append(x[full].astype("<u2"))
        x = np.where(full, x >> np.uint64(16), x)
        state[: row.size] = (x // f << np.uint64(_BITS)) + x % f + table.start[row]
    stream = np.concatenate(words[::-1]) if words else np.empty(0, "<u2")
    head = bytes([_CODED | shift << 4 | log_lanes, first, len(codes) - 1]) + codes.tobytes()
    return head + stream.size.to_bytes(2, "little") + state.astype("<u4").tobytes() + stream.tobytes()


class _Reader:
    """Takes bytes from the front; every take is checked."""

    def __init__(self, data: Bytes) -> None:
        self._data = data

    @property
    def left(self) -> int:
        return self._data.size

    def take(self, size: int) -> Bytes:
        if size > self._data.size:
            raise _corrupt()
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def byte(self) -> int:
        return int(self.take(1)[0])


def _take_block(reader: _Reader, count: int, width: int, floats: bool) -> Words:
    how, present = reader.byte(), reader.byte()
    if how & ~(_SPARSE | _DELTA) or present >> width or (how & _DELTA and floats):
        raise _corrupt()
    there = np.ones(count, np.bool_)
    if how & _SPARSE:
        bits = np.unpackbits(_take_plane(reader, (count + 7) // 8), bitorder="little").view(np.bool_)
        there = bits[:count]
        if bits[count:].any() or there.all() or not there.any():
            raise _corrupt()
    kept = np.zeros(int(there.sum()), np.uint64)
    for p in range(width):
        if present >> p & 1:
            kept |= _take_plane(reader, kept.size).astype(np.uint64) << np.uint64(8 * p)
    if how & _SPARSE and not kept.all():
        raise _corrupt()
    words = np.zeros(count, np.uint64)
    words[there] = kept
    return np.cumsum(words, dtype=np.uint64) if how & _DELTA else words


def _take_plane(reader: _Reader, count: int) -> Bytes:
    how, first = reader.byte(), reader.byte()
    shift, low = how >> 4 & 7, how & 15
    if not how & _CODED:
        return _unpacked(reader, count, first, shift, low)
    symbols = reader.byte() + 1
    if low > _MOST_LANES or first + (symbols - 1 << shift) > 255:
        raise _corrupt()
    table = _table_of(reader.take(symbols))
    words = int.from_bytes(reader.take(2).tobytes(), "little")
    state = reader.take(4 << low).view("<u4").astype(np.uint64)
    return _decoded(table, state, reader.take(2 * words).view("<u2"), count) * np.uint8(
        1 << shift
    ) + np.uint8(first)


def _unpacked(reader: _Reader, count: int, first: int, shift: int, bits: int) -> Bytes:
    if bits > 8 or (bits == 8 and (first or shift)):
        raise _corrupt()
    data = reader.take((count * bits + 7) // 8)
    if bits == 8:
        return data
    spread = np.unpackbits(data, bitorder="little")
    if spread[count * bits :].any():
        raise _corrupt()
    values = np.packbits(spread[: count * bits].reshape(count, bits), axis=1, bitorder="little")
    wide = (values.reshape(-1) if bits else np.zeros(count)).astype(np.int64)
    symbols = first + (wide << shift)
    if symbols.max(initial=0) > 255:
        raise _corrupt()
    return symbols.astype(np.uint8)


def _decoded(table: _Table, state: Words, words: NDArray[np.uint16], count: int) -> Bytes:
    """The numbers of the next `count` symbols."""
    symbol = np.repeat(np.arange(table.frequency.size, dtype=np.uint8), table.frequency.astype(np.int64))
    frequency, start = table.frequency[symbol], table.start[symbol]
    out, at, lanes = np.empty(count, np.uint8), 0, state.size
    for i in range(0, count, lanes):
        x = state[: min(lanes, count - i)]
        slot = (x & np.uint64(_TOTAL - 1)).astype(np.intp)
        out[i : i + x.size] = symbol[slot]
        x = frequency[slot] * (x >> np.uint64(_BITS)) + (slot.astype(np.uint64) - start[slot])
        small = np.flatnonzero(x < _LEAST)
        if at + small.size > words.size:
            raise _corrupt()
        x[small] = x[small] << np.uint64(16) | words[at : at + small.size].astype(np.uint64)
        at += small.size
        state[: x.size] = x
    if at < words.size or (state != _LEAST).any():
        raise _corrupt()
    return out


def _corrupt() -> PayloadError:
    return PayloadError("entropy", "entropy-coded bytes are not what was encoded")
