"""Records of a slim file: what it says of its tensors and sections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from math import prod

from slimfleet.compression.packing.dtypes import Dtype

WHOLE = 255
"""In place of an axis: one step for the whole tensor."""
MOST_CENTROIDS = 1 << 16


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
