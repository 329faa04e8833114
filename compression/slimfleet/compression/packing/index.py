"""Index of a slim file: what is in it and where, to bytes and strictly back. docs/wire-format.md is the contract."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from math import prod

import numpy as np

from slimfleet.compression.codec.entropy.fields import MAX_OFFSETS, Reader
from slimfleet.compression.codec.quantise.grid import LEAST_UNIT
from slimfleet.compression.errors import PayloadError
from slimfleet.compression.packing.dtypes import DTYPES, FLOAT32, Dtype

MOST_INDEX_BYTES = 1 << 26
"""Of the index, as it is read; a tensor takes some 30 to 100."""
MOST_DIMENSIONS = 32
MOST_ELEMENTS = 1 << 48
WHOLE = 255
"""In place of an axis: one step for the whole tensor."""
MOST_CENTROIDS = 1 << 16

_UNIT = struct.Struct("<f")
_CHECKSUM = struct.Struct("<Q")


class Store(IntEnum):
    """How a record's values follow from its section."""

    PLAIN = 0
    """Bit for bit."""
    GRID = 1
    """Levels on a quantiser's grid."""
    MULTIPLES = 2
    """Integers times the steps in the record before."""
    CODEBOOK = 3
    """Indices into the centroids in the record before."""
    TIED = 4
    """Those of an earlier record."""


class Section(IntEnum):
    """How a section is coded."""

    PLANES = 0
    """Elements, by planes of bytes."""
    SMALL = 1
    """Levels, by contexts that are mixed: the native coder's."""
    FAST = 2
    """Levels, by single contexts: the native coder's."""
    LEVELS = 3
    """Levels, by planes of bytes."""


@dataclass(slots=True)
class Record:
    """One tensor of the index; without a name, the steps or centroids of the next."""

    name: str
    dtype: Dtype
    shape: tuple[int, ...]
    store: Store
    section: int = 0
    """The first section that has a part of it; of a tied record, the number of the earlier record."""
    part: int = 0
    """Elements in each of its sections, which are then its alone; 0: it is whole in one, which others may share."""
    unit: float = 0.0
    """Of a grid: quantiser step / 256."""
    offsets: tuple[int, ...] = ()
    """Of a grid: see `codec.quantise.grid.Grid`."""
    axis: int = WHOLE
    """Of multiples: along which the steps lie."""
    origin: int = 0
    """Of a codebook: the index of level 0."""

    @property
    def size(self) -> int:
        """Number of elements; 1 for a 0-d tensor."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return self.size * self.dtype.itemsize

    @property
    def sections(self) -> range:
        """Numbers of its sections; none of a tied record."""
        if self.store is Store.TIED:
            return range(0)
        return range(self.section, self.section + (-(-self.size // self.part) if self.part else 1))

    def piece(self, section: int) -> Piece:
        """What is in one of its sections."""
        start = (section - self.section) * self.part
        stop = min(start + self.part, self.size) if self.part else self.size
        return Piece(self, start, stop)


@dataclass(frozen=True, slots=True)
class Piece:
    """The elements start..stop of a record's tensor, in C order."""

    record: Record
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.stop - self.start

    @property
    def shape(self) -> tuple[int, ...]:
        """As the coder of levels sees it: whole rows of the tensor."""
        inner = self.record.shape[1:]
        if len(self.record.shape) < 2 or not self.record.part:
            return self.record.shape if not self.record.part else (self.size,)
        return (self.size // max(prod(inner), 1), *inner)


@dataclass(frozen=True, slots=True)
class Stored:
    """One section in the file."""

    coder: Section
    length: int
    checksum: int
    """XXH3-64 of its bytes."""


@dataclass(slots=True)
class Index:
    """What a slim file says about itself."""

    fields: Mapping[str, str] = field(default_factory=dict)
    sections: list[Stored] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)


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
    _check(index)
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


def _known(kind: type, number: int):  # type: ignore[no-untyped-def]
    try:
        return kind(number)
    except ValueError:
        raise PayloadError(
            "version", f"unknown {kind.__name__.lower()} {number}: a newer slimfleet may know it"
        ) from None


def _check(index: Index) -> None:
    """Whether records, their sections and their companions fit together. Raises PayloadError."""
    names: set[str] = set()
    parts: dict[int, bool] = {}
    before: Record | None = None
    for number, record in enumerate(index.records):
        if record.name in names:
            raise PayloadError("header", f"two tensors are called {record.name!r}")
        if record.name:
            names.add(record.name)
        _check_companion(record, before)
        if record.store is Store.TIED:
            _check_tied(record, number, index.records)
        else:
            _check_sections(record, index.sections, parts)
        before = record
    if before is not None and not before.name:
        raise PayloadError("header", "the last record of the index has no name")
    if len(parts) < len(index.sections):
        raise PayloadError("counts", "a section belongs to no tensor")


def _check_companion(record: Record, before: Record | None) -> None:
    """Steps and centroids stand right before what they belong to, and nothing else is without a name."""
    companion = before if before is not None and not before.name else None
    wants = record.store in (Store.MULTIPLES, Store.CODEBOOK)
    if (not record.name and (wants or record.store is not Store.PLAIN)) or wants != (companion is not None):
        raise PayloadError("header", f"tensor {record.name!r} has no steps or centroids, or some too many")
    if companion is None:
        return
    if record.store is Store.CODEBOOK:
        sound = companion.dtype is record.dtype and len(companion.shape) == 1
        sound = sound and 0 < companion.size <= MOST_CENTROIDS and record.origin < companion.size
    else:
        along = () if record.axis == WHOLE else record.shape[record.axis : record.axis + 1]
        sound = companion.dtype is FLOAT32 and companion.shape == along
        sound = sound and (record.axis == WHOLE or record.axis < len(record.shape))
        sound = sound and record.dtype.weights
    if not sound:
        raise PayloadError("header", f"the steps or centroids of tensor {record.name!r} do not fit it")


def _check_tied(record: Record, number: int, records: Sequence[Record]) -> None:
    if not record.section < number:
        raise PayloadError("header", f"tensor {record.name!r} is tied to one that does not come before it")
    other = records[record.section]
    if not other.name or other.store is Store.TIED:
        raise PayloadError("header", f"tensor {record.name!r} is tied to what is no tensor of its own")
    if (other.dtype, other.shape) != (record.dtype, record.shape):
        raise PayloadError("header", f"tensor {record.name!r} is tied to one of another shape")


def _check_sections(record: Record, sections: Sequence[Stored], parts: dict[int, bool]) -> None:
    numbers = record.sections
    if not numbers or numbers[-1] >= len(sections):
        raise PayloadError("counts", f"tensor {record.name!r} is in a section that is not there")
    levels = record.store is not Store.PLAIN
    row = prod(record.shape[1:])
    if record.part and levels and len(record.shape) > 1 and record.part % max(row, 1):
        raise PayloadError("header", f"tensor {record.name!r} is cut within a row")
    if record.store is Store.GRID and not record.dtype.weights:
        raise PayloadError("header", f"tensor {record.name!r} of {record.dtype.name} cannot be on a grid")
    for number in numbers:
        if (sections[number].coder is not Section.PLANES) != levels:
            raise PayloadError("header", f"tensor {record.name!r} is in a section of another kind")
        alone = bool(record.part)
        if number in parts and (alone or parts[number]):
            raise PayloadError("header", f"tensor {record.name!r} shares a section that holds a part")
        parts[number] = alone


def check_dtypes(pieces: Sequence[Piece]) -> Dtype:
    """The dtype of all elements of a section by planes. Raises PayloadError("header") where there are several."""
    first = pieces[0].record.dtype
    if any(piece.record.dtype is not first for piece in pieces):
        raise PayloadError("header", f"tensor {pieces[0].record.name!r} shares a section with another dtype")
    return first
