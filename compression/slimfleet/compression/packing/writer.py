"""Writer of slim files: entries in, sections out in order, coded on all cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from slimfleet.compression.codec.native.bindings import Levels, NativePreset
from slimfleet.compression.errors import BadInput
from slimfleet.compression.files import written_atomically
from slimfleet.compression.packing.codings import Codebook, Entry, Lossless, OnGrid, ToError, ToRate
from slimfleet.compression.packing.dtypes import FLOAT32, Dtype, to_float32
from slimfleet.compression.packing.index import MOST_INDEX_BYTES, deflate
from slimfleet.compression.packing.layout import LEAST_BYTES, head_bytes, most_expanded, tail_bytes
from slimfleet.compression.packing.lossy import LEAST_NMSE, Lossy, Settled, code_group, code_large
from slimfleet.compression.packing.quantiser import energy, finest
from slimfleet.compression.packing.records import Index, Record, Store
from slimfleet.compression.packing.rounding import mantissa_bits, rounded
from slimfleet.compression.packing.sections import Coded, code_elements, code_levels, part_of
from slimfleet.compression.packing.settle import multiples, ranked
from slimfleet.compression.packing.stream import SectionStream

SECTION_BYTES = 1 << 22
"""Of a plain tensor in one section."""
ALONE_BYTES = 1 << 16
"""From here on a plain tensor is worth frequencies of its own."""
SECTION_LEVELS = 1 << 20
"""In one section."""
FEW = 256
"""Elements below which a tensor is too small for a grid."""
_WAITING_BYTES = 1 << 24
"""Of tensors, for each thread, that may wait for the section whose turn it is to be written."""


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(slots=True)
class Summary:
    """What was written."""

    bytes: int = 0
    """Of the file."""
    tensor_bytes: int = 0
    """Of the tensors, uncompressed."""
    parameters: int = 0
    """Elements of float tensors."""
    error: float = 0.0
    """Sum of squared errors of the tensors on a grid; the others lose less than a sixteenth of that, or nothing."""
    energy: float = 0.0
    """Sum of their squares."""

    @property
    def nmse(self) -> float:
        """Squared error over squared norm of the tensors on a grid; 0 where there is none."""
        return self.error / self.energy if self.energy else 0.0


def write_slim(
    path: Path,
    entries: Iterable[Entry],
    fields: Mapping[str, str] | None = None,
    *,
    preset: NativePreset = "small",
    threads: int | None = None,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> Summary:
    """Write tensors and text fields as a slim file; the old file or the new one is there at any moment.

    Entries are taken one after the other, coded by `threads` (all usable cores) and written in order; `progress` is
    told of the bytes of tensors that are done. The same entries give the same file, with any number of threads. Raises
    BadInput, naming the tensor, for two of a name, NaN to an error or a rate, and values that are not on the grid or in
    the codebook given; DiskError where the disk refuses.
    """
    with written_atomically(path) as file:
        file.write(head_bytes())
        pool = ThreadPoolExecutor(threads or usable_cores())
        try:
            room = _WAITING_BYTES * (threads or usable_cores())
            writer = _Writer(SectionStream(file, pool, room, progress), pool, preset, progress)
            for entry in entries:
                writer.add(entry)
            index = writer.finish(dict(fields or {}))
        finally:
            pool.shutdown(cancel_futures=True)
        stored, inflated = deflate(index)
        file.write(stored + tail_bytes(stored, inflated))
        writer.summary.bytes = LEAST_BYTES + writer.stream.bytes + len(stored)
        _refuse_unreadable(inflated, writer.summary)
    return writer.summary


@dataclass(slots=True)
class _Plain:
    record: Record
    array: NDArray[Any]


@dataclass(slots=True)
class _Writer:
    """The records of a file in the making, and the small tensors that wait for company in a section."""

    stream: SectionStream
    pool: ThreadPoolExecutor
    preset: NativePreset
    progress: Callable[[int], None]
    summary: Summary = field(default_factory=Summary)
    records: list[Record] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    known: dict[tuple[object, ...], int] = field(default_factory=dict)
    """Where tensors are, by their content and coding."""
    plain: dict[str, list[_Plain]] = field(default_factory=dict)
    """By dtype."""
    levels: dict[str, list[Lossy | Settled]] = field(default_factory=dict)
    """To a rate, or not."""

    def add(self, entry: Entry) -> None:
        """Take one tensor."""
        if not entry.name or entry.name in self.names:
            raise BadInput(f"two tensors are called {entry.name!r}" if entry.name else "a tensor has no name")
        self.names.add(entry.name)
        dtype, array = _checked(entry)
        self.summary.tensor_bytes += array.nbytes
        self.summary.parameters += array.size if dtype.floats else 0
        record = Record(entry.name, dtype, array.shape, Store.PLAIN)
        if self._tie(record, array, entry):
            self.progress(array.nbytes)
            return
        match entry.coding:
            case Lossless():
                self._add_plain(record, array)
            case ToError() | ToRate() as coding:
                self._add_lossy(record, array, coding)
            case OnGrid() as coding:
                step, record.axis, levels = multiples(entry.name, array, dtype, coding)
                self._add_plain(Record("", FLOAT32, step.shape, Store.PLAIN), step)
                record.store = Store.MULTIPLES
                self._add_settled(record, levels)
            case Codebook() as coding:
                centroids, record.origin, levels = ranked(entry.name, array, dtype, coding)
                self._add_plain(Record("", dtype, centroids.shape, Store.PLAIN), centroids)
                record.store = Store.CODEBOOK
                self._add_settled(record, levels)

    def finish(self, fields: Mapping[str, str]) -> Index:
        """Close the sections that are open; the index of all."""
        for name in list(self.plain):
            self._close_plain(name)
        for name in list(self.levels):
            self._close_levels(name)
        self.stream.flush()
        return Index(fields, self.stream.sections, self.records)

    def _tie(self, record: Record, array: NDArray[Any], entry: Entry) -> bool:
        """Whether these values under this coding are there already: then they are noted to be the same."""
        if array.ndim == 0 or not array.size:
            return False
        digest = xxhash.xxh3_128_digest(array.reshape(-1).view(np.uint8).data)
        # Equal values on a grid or of a codebook come back equal, whatever its steps; those come before them.
        settled = isinstance(entry.coding, OnGrid | Codebook)
        key = (digest, record.dtype, record.shape, type(entry.coding) if settled else entry.coding)
        own = len(self.records) + settled
        other = self.known.setdefault(key, own)
        if other == own:
            return False
        record.store, record.section = Store.TIED, other
        self.records.append(record)
        return True

    def _add_plain(self, record: Record, array: NDArray[Any]) -> None:
        self.records.append(record)
        if array.nbytes < ALONE_BYTES:
            group = self.plain.setdefault(record.dtype.name, [])
            group.append(_Plain(record, array))
            if sum(each.array.nbytes for each in group) >= SECTION_BYTES:
                self._close_plain(record.dtype.name)
            return
        record.section = self.stream.following
        record.part = SECTION_BYTES // array.itemsize if array.nbytes > SECTION_BYTES else 0
        for part in _cut(array.reshape(-1), record.part or array.size):
            self.stream.submit(partial(code_elements, part, record.dtype), part.nbytes)

    def _add_lossy(self, record: Record, array: NDArray[Any], coding: ToError | ToRate) -> None:
        dtype = record.dtype
        if not dtype.weights or not array.size:
            self._add_plain(record, array)
            return
        _refuse_nonfinite(record, array)
        if array.ndim < 2 or array.size < FEW or not _suits_a_grid(array, dtype, coding.nmse):
            self._add_plain(record, rounded(array, dtype, mantissa_bits(coding.nmse)))
            return
        record.store = Store.GRID
        lossy = Lossy(record, array, coding)
        if array.size <= SECTION_LEVELS:
            self._add_levels("rate" if isinstance(coding, ToRate) else "error", lossy)
            return
        self.records.append(record)
        self.stream.flush()
        record.part, record.section = _whole_rows(array.shape), self.stream.following
        left = array.nbytes
        for coded in code_large(lossy, self.preset, self.pool):
            self.stream.write(coded, min(record.part * array.itemsize, left))
            left -= record.part * array.itemsize
        self._count(lossy)

    def _add_settled(self, record: Record, levels: Levels) -> None:
        if levels.size <= SECTION_LEVELS:
            self._add_levels("error", Settled(record, levels))
            return
        self.records.append(record)
        record.part, record.section = _whole_rows(levels.shape), self.stream.following
        rows = record.part // prod(levels.shape[1:])
        for start in range(0, levels.shape[0], rows):
            part = levels[start : start + rows]
            self.stream.submit(partial(_code_settled, part, self.preset), part.size * record.dtype.itemsize)

    def _add_levels(self, group: str, item: Lossy | Settled) -> None:
        self.records.append(item.record)
        items = self.levels.setdefault(group, [])
        items.append(item)
        if sum(each.record.size for each in items) >= SECTION_LEVELS:
            self._close_levels(group)

    def _close_plain(self, dtype: str) -> None:
        """From now on the section of these tensors has a number."""
        items = self.plain.pop(dtype)
        for item in items:
            item.record.section = self.stream.following
        joined = np.concatenate([item.array.reshape(-1) for item in items])
        self.stream.submit(partial(code_elements, joined, items[0].record.dtype), joined.nbytes)

    def _close_levels(self, group: str) -> None:
        items = self.levels.pop(group)
        for item in items:
            item.record.section = self.stream.following
        nbytes = sum(item.record.nbytes for item in items)
        lossy = [item for item in items if isinstance(item, Lossy)]
        self.stream.submit(partial(code_group, items, self.preset), nbytes, partial(self._count, *lossy))

    def _count(self, *lossy: Lossy) -> None:
        for item in lossy:
            self.summary.error += item.error
            self.summary.energy += item.energy


def _refuse_unreadable(index_bytes: int, summary: Summary) -> None:
    """Raise BadInput for what the reader would take for an attack."""
    if index_bytes > MOST_INDEX_BYTES:
        raise BadInput(f"names and fields take {index_bytes:,} bytes, the limit is {MOST_INDEX_BYTES:,}")
    if summary.tensor_bytes > most_expanded(summary.bytes):
        raise BadInput(
            f"{summary.tensor_bytes:,} bytes of tensors would be packed into {summary.bytes:,}: they hold next to "
            f"nothing, and a reader takes such a file for a decompression bomb"
        )


def _checked(entry: Entry) -> tuple[Dtype, NDArray[Any]]:
    """The dtype of an entry, and its array in C order as that dtype is held."""
    try:
        dtype = entry.kind
    except KeyError:
        raise BadInput(
            f"tensor {entry.name!r} is {entry.dtype or entry.array.dtype.name}, which cannot be stored"
        ) from None
    if entry.array.dtype.newbyteorder("=") != np.dtype(dtype.held).newbyteorder("="):
        raise BadInput(f"tensor {entry.name!r} is called {dtype.name} and held as {entry.array.dtype.name}")
    return dtype, np.asarray(entry.array, dtype.held, order="C")


def _refuse_nonfinite(record: Record, array: NDArray[Any]) -> None:
    for part in _cut(array.reshape(-1), SECTION_LEVELS):
        if not np.isfinite(to_float32(part, record.dtype)).all():
            raise BadInput(
                f"tensor {record.name!r} holds NaN, infinity or more than float32 can: such values can be packed "
                f"without loss only"
            )


def _suits_a_grid(array: NDArray[Any], dtype: Dtype, nmse: float) -> bool:
    """Whether levels can be as fine as the error asks for; not of zeros alone."""
    if nmse < LEAST_NMSE[dtype.name]:
        return False
    squares = least = 0.0
    for part in _cut(array.reshape(-1), SECTION_LEVELS):
        values = to_float32(part, dtype)
        squares, least = squares + energy(values), max(least, finest(values))
    return 0 < squares < float("inf") and least**2 * array.size <= 3 * nmse * squares


def _code_settled(levels: Levels, preset: NativePreset) -> Coded:
    return code_levels([part_of(levels)], [levels], preset)


def _whole_rows(shape: tuple[int, ...]) -> int:
    """Elements of a part: as many rows as there is room for, and one at least."""
    row = prod(shape[1:])
    return max(SECTION_LEVELS // row, 1) * row


def _cut(flat: NDArray[Any], size: int) -> Iterable[NDArray[Any]]:
    return (flat[start : start + size] for start in range(0, flat.size, size))
