"""Slim files in plain Python, from the page alone: index, planes, levels, codings."""

import struct
import zlib
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import xxhash

from plain_decoder.bits import Bits
from plain_decoder.contexts import Matrix

WIDTH = (1, 1, 1, 2, 2, 4, 4, 8, 8, 2, 2, 4, 8, 8, 16, 1, 1, 1)
"""Bytes of an element, by dtype."""
FLOATS = {9, 10, 11, 12, 13, 14}
COMPLEX = {13, 14}
PLAIN, GRID, MULTIPLES, CODEBOOK, TIED = range(5)


class Cursor:
    """Takes fields from the front of some bytes."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        self.at += size
        assert self.at <= len(self.data)
        return self.data[self.at - size : self.at]

    def fields(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))

    def varint(self) -> int:
        value = shift = 0
        while True:
            (byte,) = self.take(1)
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def text(self) -> str:
        return self.take(self.varint()).decode()

    def left(self) -> int:
        return len(self.data) - self.at


@dataclass
class Record:
    name: str
    dtype: int
    shape: tuple[int, ...]
    store: int
    section: int
    part: int = 0
    unit: float = 0.0
    offsets: tuple[int, ...] = ()
    axis: int = 255
    origin: int = 0


def read_record(index: Cursor) -> Record:
    name = index.text()
    dtype, dimensions = index.fields("BB")
    shape = tuple(index.varint() for _ in range(dimensions))
    record = Record(name, dtype, shape, index.fields("B")[0], index.varint())
    if record.store != TIED:
        record.part = index.varint()
    if record.store == GRID:
        record.unit, count = index.fields("fB")
        record.offsets = index.fields(f"{count}h")
    elif record.store == MULTIPLES:
        (record.axis,) = index.fields("B")
    elif record.store == CODEBOOK:
        record.origin = index.varint()
    return record


# ---- planes ----


def weight_of(code: int) -> int:
    return code if code < 8 else (8 + code % 8) << (code // 8 - 1)


def read_plane(data: Cursor, count: int) -> list[int]:
    how, first = data.fields("BB")
    shift, low = how >> 4 & 7, how & 15
    if how < 128:
        bits = int.from_bytes(data.take((count * low + 7) // 8), "little")
        values = [bits >> (low * i) & ((1 << low) - 1) for i in range(count)]
        assert bits >> (low * count) == 0
        return [first + (value << shift) for value in values]
    codes = data.take(data.fields("B")[0] + 1)
    (words,) = data.fields("H")
    states, stream = list(data.fields(f"{1 << low}I")), list(data.fields(f"{words}H"))
    weights = [weight_of(code) for code in codes]
    used = sum(weight > 0 for weight in weights)
    frequencies = [1 + weight * (4096 - used) // sum(weights) if weight else 0 for weight in weights]
    frequencies[weights.index(max(weights))] += 4096 - sum(frequencies)
    owner = [k for k, frequency in enumerate(frequencies) for _ in range(frequency)]
    starts = [sum(frequencies[:k]) for k in range(len(frequencies))]
    symbols = []
    for i in range(count):
        state = states[i % len(states)]
        k = owner[state % 4096]
        state = frequencies[k] * (state // 4096) + state % 4096 - starts[k]
        if state < 1 << 16:
            state = state << 16 | stream.pop(0)
        states[i % len(states)] = state
        symbols.append(first + (k << shift))
    assert not stream
    assert set(states) == {1 << 16}
    return symbols


def read_block(data: Cursor, count: int, width: int, floats: bool) -> list[int]:
    how, planes = data.fields("BB")
    there = [True] * count
    if how & 1:
        mask = read_plane(data, (count + 7) // 8)
        there = [bool(mask[i // 8] >> i % 8 & 1) for i in range(count)]
    words = [0] * sum(there)
    for p in range(width):
        if planes >> p & 1:
            words = [w | s << 8 * p for w, s in zip(words, read_plane(data, len(words)), strict=True)]
    left = iter(words)
    words = [next(left) if kept else 0 for kept in there]
    whole = 1 << 8 * width
    if how & 2:
        for i in range(1, count):
            words[i] = (words[i] + words[i - 1]) % whole
    return [w >> 1 | (w & 1) << (8 * width - 1) for w in words] if floats else words


def read_planes(data: bytes, count: int, width: int, floats: bool) -> bytes:
    cursor, words = Cursor(data), list[int]()
    for start in range(0, count, 65536):
        words += read_block(cursor, min(65536, count - start), width, floats)
    assert cursor.left() == 0
    return b"".join(word.to_bytes(width, "little") for word in words)


# ---- tensors ----


class PlainSlim:
    """The fields and the tensors of a slim file, these as bytes in C order."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        assert struct.unpack("<4sHH", data[:8]) == (b"SLIM", 1, 0)
        stored, inflated, checksum = struct.unpack("<IIQ", data[-16:])
        packed = data[len(data) - 16 - stored : -16]
        assert xxhash.xxh3_64_intdigest(data[:8] + packed + data[-16:-8]) == checksum
        plain = zlib.decompress(packed, -15)
        assert len(plain) == inflated
        index = Cursor(plain)
        self.fields = {index.text(): index.text() for _ in range(index.varint())}
        self.sections = []
        at = 8
        for _ in range(index.varint()):
            (coder,), length, (digest,) = index.fields("B"), index.varint(), index.fields("Q")
            section = data[at : at + length]
            assert xxhash.xxh3_64_intdigest(section) == digest
            self.sections.append((coder, section))
            at += length
        assert at == len(data) - 16 - stored
        self.records = [read_record(index) for _ in range(index.varint())]
        assert index.left() == 0

    def tensors(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        before: Record | None = None
        for record in self.records:
            if record.name:
                found[record.name] = self.tensor(record, before)
            before = record
        return found

    def tensor(self, record: Record, before: Record | None = None) -> bytes:
        if record.store == TIED:
            other = self.records[record.section]
            return self.tensor(other, self.records[record.section - 1] if record.section else None)
        if record.store == PLAIN:
            return self.raw(record)
        levels = self.raw(record)
        if record.store == CODEBOOK:
            assert before
            book, width = self.tensor(before), WIDTH[record.dtype]
            at = [(level + record.origin) * width for level in levels]
            return b"".join(book[i : i + width] for i in at)
        if record.store == GRID:
            offsets = record.offsets or (0,)
            factors = [
                (256 * abs(k) + offsets[min(abs(k), len(offsets)) - 1]) * (1 if k > 0 else -1) if k else 0
                for k in levels
            ]
            steps = [record.unit] * len(levels)
        else:
            assert before
            known = np.frombuffer(self.tensor(before), "<f4")
            inner = prod(record.shape[record.axis + 1 :]) if record.axis < 255 else 1
            steps = [float(known[i // inner % len(known)]) for i in range(len(levels))]
            factors = levels
        # In doubles the product is exact, so that it is rounded once.
        values = np.array([f * s for f, s in zip(factors, steps, strict=True)], "<f8").astype("<f4")
        return convert(values, record.dtype)

    def raw(self, record: Record) -> Any:
        """The elements of a plain record, as bytes, or the levels of another."""
        if not record.part:
            return self.pieces(record.section)[id(record)]
        count = -(-prod(record.shape) // record.part)
        parts = [self.pieces(record.section + i)[id(record)] for i in range(count)]
        return b"".join(parts) if record.store == PLAIN else [level for part in parts for level in part]

    def pieces(self, number: int) -> dict[int, Any]:
        """What is in a section, by record."""
        coder, data = self.sections[number]
        inside = [(r, shape) for r in self.records if (shape := self.shape_in(r, number)) is not None]
        sizes = [prod(shape) for _, shape in inside]
        if coder == 0:
            dtype = inside[0][0].dtype
            words = 2 if dtype in COMPLEX else 1
            flat: Any = read_planes(data, sum(sizes) * words, WIDTH[dtype] // words, dtype in FLOATS)
            sizes = [size * WIDTH[dtype] for size in sizes]
        elif coder == 3:
            folded = np.frombuffer(read_planes(data, sum(sizes), 4, False), "<u4").tolist()
            flat = [-(v + 1) // 2 if v % 2 else v // 2 for v in folded]
        else:
            heads, bits = data[: len(inside)], Bits(data[len(inside) :], 5 if coder == 1 else 1)
            flat = []
            for head, (_, shape) in zip(heads, inside, strict=True):
                how = (coder == 1) + 2 * (head >= 128)
                matrix = head & 127 and prod(shape)
                flat += Matrix(bits, shape, head & 127, how, None).read() if matrix else [0] * prod(shape)
            bits.check_end()
        ends = np.cumsum([0, *sizes]).tolist()
        return {id(record): flat[a:b] for (record, _), a, b in zip(inside, ends, ends[1:], strict=False)}

    def shape_in(self, record: Record, number: int) -> tuple[int, ...] | None:
        """The shape of what a section has of a record."""
        if record.store == TIED or number < record.section:
            return None
        if not record.part:
            return record.shape if number == record.section else None
        start = (number - record.section) * record.part
        size = min(record.part, prod(record.shape) - start)
        if size <= 0:
            return None
        inner = record.shape[1:] if record.store != PLAIN else ()
        return (size // prod(inner), *inner)


def convert(values: Any, dtype: int) -> bytes:
    """float32 to another float dtype."""
    if dtype == 10:
        bits = [int(b) for b in values.view("<u4")]
        cut = [min((b & 0x7FFFFFFF) + 0x7FFF + (b >> 16 & 1) >> 16, 0x7F7F) | b >> 16 & 0x8000 for b in bits]
        return np.array(cut, "<u2").tobytes()
    if dtype == 9:
        return np.clip(values, -65504, 65504).astype("<f2").tobytes()
    return values.astype("<f8" if dtype == 12 else "<f4").tobytes()
