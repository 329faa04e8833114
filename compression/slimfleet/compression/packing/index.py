"""Index of a slim file to bytes, and strictly back. docs/wire-format.md is the contract."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from enum import IntEnum
from math import prod
from typing import TypeVar

import numpy as np

from slimfleet.compression.codec.entropy.fields import MAX_OFFSETS, Reader
from slimfleet.compression.codec.quantise.grid import LEAST_UNIT
from slimfleet.compression.errors import PayloadError
from slimfleet.compression.packing.coherence import check_index
from slimfleet.compression.packing.dtypes import DTYPES
from slimfleet.compression.packing.records import Index, Record, Section, Store, Stored

Number = TypeVar("Number", bound=IntEnum)

MOST_INDEX_BYTES = 1 << 26
"""Of the index, as it is read; a tensor takes some 30 to 100."""
MOST_DIMENSIONS = 32
MOST_ELEMENTS = 1 << 48

_UNIT = struct.Struct("<f")
_CHECKSUM = struct.Struct("<Q")


# ---- to bytes ----


def deflate(index: Index) -> tuple[bytes, int]:
    """The bytes of an index, and how many there are before they are deflated (RFC 1951)."""
    plain = b"".join(_index_bytes(index))
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return compressor.compress(plain) + compressor.flush(), len(plain)


def _index_bytes(index: Index) -> Iterator[bytes]:
    yield _varint(len(index.fields))
    for key in sorted(index.fields):
        yield _text(key) + _text(index.fields[key])
    yield _varint(len(index.sections))
    for section in index.sections:
        yield bytes([section.coder]) + _varint(section.length) + _CHECKSUM.pack(section.checksum)
    yield _varint(len(index.records))
    for record in index.records:
        yield _text(record.name) + bytes([record.dtype.number, len(record.shape)])
        yield b"".join(map(_varint, record.shape)) + bytes([record.store]) + _varint(record.section)
        if record.store is not Store.TIED:
            yield _varint(record.part) + _own_bytes(record)


def _own_bytes(record: Record) -> bytes:
    match record.store:
        case Store.GRID:
            offsets = np.array(record.offsets, "<i2").tobytes()
            return _UNIT.pack(record.unit) + bytes([len(record.offsets)]) + offsets
        case Store.MULTIPLES:
            return bytes([record.axis])
        case Store.CODEBOOK:
            return _varint(record.origin)
        case _:
            return b""


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first, the highest bit set in all but the last (LEB128)."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _text(text: str) -> bytes:
    data = text.encode()
    return _varint(len(data)) + data


# ---- and back ----


def inflate(data: bytes, size: int) -> Index:
    """The index of `size` bytes that `data` deflates, checked but for the sections' lengths in sum.

    Raises PayloadError: oversized, counts, header or grid.
    """
    if size > MOST_INDEX_BYTES:
        raise PayloadError("oversized", f"an index of {size:,} bytes, the limit is {MOST_INDEX_BYTES:,}")
    inflater = zlib.decompressobj(-15)
    try:
        plain = inflater.decompress(data, size + 1)
    except zlib.error as error:
        raise PayloadError("counts", f"the index cannot be inflated ({error})") from error
    if len(plain) != size or not inflater.eof or inflater.unused_data:
        raise PayloadError("counts", "the index does not have the length that the file states")
    reader = Reader(memoryview(plain))
    fields = {_take_text(reader): _take_text(reader) for _ in range(_count(reader, 2))}
    sections = [_take_section(reader) for _ in range(_count(reader, 10))]
    records = [_take_record(reader) for _ in range(_count(reader, 5))]
    reader.finish()
    index = Index(fields, sections, records)
    check_index(index)
    return index


def _take_varint(reader: Reader) -> int:
    value = 0
    for shift in range(0, 63, 7):
        byte = reader.byte()
        value |= (byte & 127) << shift
        if byte < 128:
            return value
    raise PayloadError("counts", "a number of more than 63 bits in the index")


def _count(reader: Reader, least_bytes: int) -> int:
    """A number of items that take so many bytes each; checked before anything is made of it."""
    count = _take_varint(reader)
    if count * least_bytes > reader.left:
        raise PayloadError("counts", f"the index states {count:,} items and has no room for them")
    return count


def _take_text(reader: Reader) -> str:
    try:
        return bytes(reader.take(_take_varint(reader))).decode()
    except UnicodeDecodeError as error:
        raise PayloadError("header", "a name in the index is not UTF-8") from error


def _take_section(reader: Reader) -> Stored:
    coder = _known(Section, reader.byte())
    length = _take_varint(reader)
    return Stored(coder, length, int(reader.unpack(_CHECKSUM)[0]))


def _take_record(reader: Reader) -> Record:
    name, number, dimensions = _take_text(reader), reader.byte(), reader.byte()
    if number >= len(DTYPES):
        raise PayloadError("version", f"unknown dtype {number}: a newer slimfleet may know it")
    if dimensions > MOST_DIMENSIONS:
        raise PayloadError("header", f"a tensor of {dimensions} dimensions, the limit is {MOST_DIMENSIONS}")
    shape = tuple(_take_varint(reader) for _ in range(dimensions))
    record = Record(name, DTYPES[number], shape, _known(Store, reader.byte()), _take_varint(reader))
    # Dimension by dimension, so that a zero among them hides nothing.
    if any(size > MOST_ELEMENTS for size in (*shape, prod(max(size, 1) for size in shape))):
        raise PayloadError("oversized", f"tensor {name!r} has more than {MOST_ELEMENTS:,} elements")
    if record.store is Store.TIED:
        return record
    record.part = _take_varint(reader)
    match record.store:
        case Store.GRID:
            record.unit = float(reader.unpack(_UNIT)[0])
            if not LEAST_UNIT <= record.unit < float("inf"):
                raise PayloadError("grid", f"tensor {name!r} has a quantiser step out of range")
            count = reader.byte()
            if count > MAX_OFFSETS:
                raise PayloadError("grid", f"{count} offsets, the limit is {MAX_OFFSETS}")
            record.offsets = tuple(map(int, np.frombuffer(reader.take(2 * count), "<i2")))
        case Store.MULTIPLES:
            record.axis = reader.byte()
        case Store.CODEBOOK:
            record.origin = _take_varint(reader)
    return record


def _known(kind: type[Number], number: int) -> Number:
    try:
        return kind(number)
    except ValueError:
        raise PayloadError(
            "version", f"unknown {kind.__name__.lower()} {number}: a newer slimfleet may know it"
        ) from None
