"""Reader of slim files: the index at once, tensors when they are asked for."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from slimfleet.compression.codec.native.bindings import LARGEST_LEVEL, Levels, largest_magnitude
from slimfleet.compression.codec.quantise.grid import Grid, dequantised
from slimfleet.compression.errors import PayloadError
from slimfleet.compression.files import naming
from slimfleet.compression.packing.codings import Codebook, Entry, Lossless, OnGrid
from slimfleet.compression.packing.coherence import check_dtypes
from slimfleet.compression.packing.dtypes import from_float32, to_float32
from slimfleet.compression.packing.index import inflate
from slimfleet.compression.packing.layout import (
    HEAD,
    LEAST_BYTES,
    TAIL,
    check_head,
    most_expanded,
    read_tail,
    tail_bytes,
)
from slimfleet.compression.packing.records import WHOLE, Index, Piece, Record, Section, Store
from slimfleet.compression.packing.sections import read_elements, read_levels
from slimfleet.compression.packing.settle import LARGEST_INTEGER, along, multiplied

_KEPT_SECTIONS = 4
"""Shared sections of at most some 8 MB that are kept decoded: the tensors of a layer lie in several."""


@dataclass(frozen=True, slots=True)
class Description:
    """One tensor of a slim file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    coding: str
    """plain (bit for bit), grid, on-grid, codebook, or tied."""
    bytes: float
    """In the file; its share by elements where tensors share a section."""
    tied_to: str | None = None


class SlimFile:
    """An open slim file. `SlimFile.open` makes one; it is a context manager. Several threads may read from it."""

    def __init__(self, path: Path, descriptor: int, index: Index) -> None:
        self._path, self._descriptor, self._index = path, descriptor, index
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, dict[int, NDArray[Any]]] = OrderedDict()
        self._companion_values: dict[str, NDArray[Any]] = {}
        self._starts = np.cumsum([HEAD.size, *(section.length for section in index.sections)]).tolist()

    @classmethod
    def open(cls, path: Path, most_bytes: int | None = None) -> SlimFile:
        """Read the index of a slim file; sections are checked as they are read.

        `most_bytes` bounds the tensors together, in place of `layout.most_expanded`. Raises
        PayloadError where it is no slim file, or a damaged one; DiskError where it cannot be read.
        """
        with naming(path, "read"):
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            with naming(path, "read"):
                index = _read_index(descriptor)
            _refuse_bomb(index, os.fstat(descriptor).st_size, most_bytes)
            return cls(path, descriptor, index)
        except BaseException:
            os.close(descriptor)
            raise

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> SlimFile:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    @property
    def fields(self) -> Mapping[str, str]:
        """Text fields."""
        return self._index.fields

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors, in the order in which they were written."""
        return tuple(self._records)

    @cached_property
    def tied(self) -> Mapping[str, str]:
        """Tensors that are stored once: name -> the earlier one that it equals."""
        return {name: other.name for name, other in self._tied_to.items()}

    def describe(self, name: str) -> Description:
        """What is known of a tensor without reading it. Raises KeyError."""
        record = self._records[name]
        words = {
            Store.PLAIN: "plain",
            Store.GRID: "grid",
            Store.MULTIPLES: "on-grid",
            Store.CODEBOOK: "codebook",
            Store.TIED: "tied",
        }
        own = [record]
        if record.store in (Store.MULTIPLES, Store.CODEBOOK):
            own.append(self._companion(record))
        taken = sum(self._share(each) for each in own)
        return Description(
            name, record.dtype.name, record.shape, words[record.store], taken, self.tied.get(name)
        )

    def size_of(self, name: str) -> int:
        """Bytes of a tensor, in its dtype. Raises KeyError."""
        return self._records[name].nbytes

    def tensor(self, name: str) -> NDArray[Any]:
        """A tensor, in its shape and dtype; bfloat16 as float32, float8 as uint8.

        Raises KeyError for an unknown name, and PayloadError that names the tensor where it is damaged.
        """
        record = self._records[name]
        array = self.held(name)
        return to_float32(array, record.dtype) if record.dtype.name == "bfloat16" else array

    def held(self, name: str) -> NDArray[Any]:
        """As `tensor`, but bfloat16 as uint16, bit for bit."""
        record = self._source(name)
        out = np.empty(record.size, record.dtype.held)
        for number in record.sections:
            for piece, values in self.section(number, record):
                out[piece.start : piece.stop] = values
        return out.reshape(record.shape)

    def entry(self, name: str) -> Entry:
        """A tensor with the coding that would store it as it is here: integers and steps, indices and centroids."""
        record = self._source(name)
        array, dtype = self.held(name), record.dtype.name
        match record.store:
            case Store.MULTIPLES:
                return Entry(
                    name,
                    array,
                    OnGrid(self._values(record), 0 if record.axis == WHOLE else record.axis),
                    dtype,
                )
            case Store.CODEBOOK:
                levels = np.empty(record.size, np.int32)
                for number in record.sections:
                    for piece, part in self._levels(number).items():
                        if self._pieces[number][piece].record is record:
                            where = self._pieces[number][piece]
                            levels[where.start : where.stop] = part.reshape(-1)
                indices = (levels + record.origin).astype(np.uint16).reshape(record.shape)
                return Entry(name, array, Codebook(self._values(record), indices), dtype)
            case _:
                return Entry(name, array, Lossless(), dtype)

    @property
    def section_count(self) -> int:
        """Number of sections."""
        return len(self._index.sections)

    def section(self, number: int, only: Record | None = None) -> Iterator[tuple[Piece, NDArray[Any]]]:
        """Pieces of tensors that a section has, decoded, flat, as their dtype is held; those of one record if given.

        Raises PayloadError that names the tensors of the section.
        """
        pieces = self._pieces[number]
        try:
            raw = self._decoded(number)
            for at, piece in enumerate(pieces):
                if only is None or piece.record is only:
                    yield piece, self._finished(piece, raw[at])
        except PayloadError as error:
            raise PayloadError(error.reason, f"{_named(pieces)}: {error}") from error

    # ---- inside ----

    @cached_property
    def _records(self) -> dict[str, Record]:
        return {record.name: record for record in self._index.records if record.name}

    @cached_property
    def _tied_to(self) -> dict[str, Record]:
        return {
            record.name: self._index.records[record.section]
            for record in self._index.records
            if record.store is Store.TIED
        }

    @cached_property
    def _pieces(self) -> list[list[Piece]]:
        """By section."""
        pieces: list[list[Piece]] = [[] for _ in self._index.sections]
        for record in self._index.records:
            for number in record.sections:
                pieces[number].append(record.piece(number))
        return pieces

    @cached_property
    def _companions(self) -> dict[str, Record]:
        pairs = zip(self._index.records, self._index.records[1:], strict=False)
        return {record.name: before for before, record in pairs if not before.name}

    def _companion(self, record: Record) -> Record:
        return self._companions[record.name]

    def _source(self, name: str) -> Record:
        return self._tied_to.get(name) or self._records[name]

    def _share(self, record: Record) -> float:
        total = 0.0
        for number in record.sections:
            mine = record.piece(number).size
            size = sum(piece.size for piece in self._pieces[number])
            total += self._index.sections[number].length * (mine / size if size else 1.0)
        return total

    def _values(self, record: Record) -> NDArray[Any]:
        """The steps or centroids of a record, as held."""
        known = self._companion_values.get(record.name)
        if known is not None:
            return known
        companion = self._companion(record)
        parts = [values for number in companion.sections for _, values in self.section(number, companion)]
        values = np.concatenate(parts).reshape(companion.shape)
        self._companion_values[record.name] = values
        return values

    def _decoded(self, number: int) -> dict[int, NDArray[Any]]:
        """Elements or levels of a section's pieces; some shared sections are kept, since tensors are read in turn."""
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
                return self._kept[number]
        data = self._bytes(number)
        pieces, coder = self._pieces[number], self._index.sections[number].coder
        if coder is Section.PLANES:
            dtype = check_dtypes(pieces)
            flat = read_elements(data, dtype, sum(piece.size for piece in pieces))
            ends = np.cumsum([piece.size for piece in pieces])[:-1]
            values = dict(enumerate(np.split(flat, ends)))
        else:
            values = dict(enumerate(read_levels(data, coder, pieces)))
        if len(pieces) > 1:
            with self._lock:
                self._kept[number] = values
                if len(self._kept) > _KEPT_SECTIONS:
                    self._kept.popitem(last=False)
        return values

    def _levels(self, number: int) -> dict[int, Levels]:
        return self._decoded(number)

    def _bytes(self, number: int) -> memoryview:
        section, start = self._index.sections[number], self._starts[number]
        with naming(self._path, "read"):
            data = os.pread(self._descriptor, section.length, start)
        if len(data) != section.length or xxhash.xxh3_64_intdigest(data) != section.checksum:
            raise PayloadError("checksum", "its bytes have changed, the file is damaged")
        return memoryview(data)

    def _finished(self, piece: Piece, raw: NDArray[Any]) -> NDArray[Any]:
        record = piece.record
        match record.store:
            case Store.PLAIN:
                return raw
            case Store.GRID:
                if largest_magnitude(raw) > LARGEST_LEVEL:
                    raise PayloadError("grid", f"a level beyond {LARGEST_LEVEL:,}")
                grid = Grid((record.unit,), record.offsets, 0)
                values = dequantised(raw, grid, np.float32(record.unit))
                return from_float32(values, record.dtype).reshape(-1)
            case Store.MULTIPLES:
                return self._multiplied(piece, raw).reshape(-1)
            case _:
                centroids = self._values(record)
                indices = raw.astype(np.int64) + record.origin
                if indices.size and not 0 <= int(indices.min()) <= int(indices.max()) < centroids.size:
                    raise PayloadError("counts", "an index points beyond the codebook")
                return np.asarray(centroids[indices].reshape(-1))

    def _multiplied(self, piece: Piece, levels: Levels) -> NDArray[Any]:
        record = piece.record
        if largest_magnitude(levels) > LARGEST_INTEGER:
            raise PayloadError("counts", f"an integer beyond {LARGEST_INTEGER:,}")
        steps = along(self._values(record), record.axis, len(record.shape))
        if not (np.isfinite(steps) & (steps > 0)).all():
            raise PayloadError("grid", "a step that is not positive and finite")
        if record.axis == 0 and record.part:
            row = max(prod(record.shape[1:]), 1)
            steps = steps[piece.start // row : piece.stop // row]
        with np.errstate(over="ignore"):
            values = multiplied(levels.reshape(piece.shape), steps)
        if not np.isfinite(values).all():
            raise PayloadError("nonfinite", "an integer times its step overflows float32")
        return from_float32(values, record.dtype)


def _read_index(descriptor: int) -> Index:
    size = os.fstat(descriptor).st_size
    check_head(os.pread(descriptor, HEAD.size, 0))
    if size < LEAST_BYTES:
        raise PayloadError("truncated", f"a slim file of {size} bytes, the least is {LEAST_BYTES}")
    tail = os.pread(descriptor, TAIL.size, size - TAIL.size)
    stored, inflated = read_tail(tail, size)
    data = os.pread(descriptor, stored, size - TAIL.size - stored)
    if tail_bytes(data, inflated) != tail:
        raise PayloadError(
            "checksum", "the index of the file does not fit its checksum: it is damaged or cut off"
        )
    index = inflate(data, inflated)
    if sum(section.length for section in index.sections) != size - LEAST_BYTES - stored:
        raise PayloadError("truncated", f"the file has {size:,} bytes, and not those that its index states")
    return index


def _refuse_bomb(index: Index, size: int, most_bytes: int | None) -> None:
    limit = most_expanded(size) if most_bytes is None else most_bytes
    total = sum(record.nbytes for record in index.records)
    if total > limit:
        raise PayloadError("oversized", f"its tensors would take {total:,} bytes, the limit is {limit:,}")


def _named(pieces: list[Piece]) -> str:
    names = [piece.record.name for piece in pieces if piece.record.name]
    if not names:
        return "steps or centroids"
    return f"tensor {names[0]!r}" + (f" or one of the {len(names) - 1} beside it" if len(names) > 1 else "")
