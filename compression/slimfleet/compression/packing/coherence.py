"""Coherence of an index: whether its records, their sections and their companions fit together."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from slimfleet.compression.errors import PayloadError
from slimfleet.compression.packing.dtypes import FLOAT32, Dtype
from slimfleet.compression.packing.records import (
    MOST_CENTROIDS,
    WHOLE,
    Index,
    Piece,
    Record,
    Section,
    Store,
    Stored,
)


def check_index(index: Index) -> None:
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
