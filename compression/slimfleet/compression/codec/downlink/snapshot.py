"""Snapshots: a version of the global model as the wire carries it, on both ends of the wire."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import xxhash
from numpy.typing import NDArray

from slimfleet.compression.codec.native.bindings import largest_magnitude
from slimfleet.compression.codec.quantise.grid import LARGEST_TABLE_LEVEL, Grid, Quantised
from slimfleet.compression.errors import PayloadError
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors


class Cutter(Protocol):
    """What takes a part of each tensor: an `IndexMap`."""

    def cut(self, name: str, tensor: NDArray[Any]) -> NDArray[Any]:
        """The part of one tensor."""
        ...


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A model, of whose weights level k stands for k * 256 * the tensor's unit."""

    levels: dict[str, NDArray[np.int16]]
    """Signed levels of the weight tensors by name, at most `LARGEST_TABLE_LEVEL` in magnitude."""
    units: tuple[float, ...]
    """Step / 256 of each weight tensor in schema order, float32."""
    plain: Tensors = field(default_factory=dict)
    """Buffers, frozen tensors and integers as the wire carries them. A change can leave out what is here."""

    @cached_property
    def fingerprint(self) -> int:
        """XXH64 (seed 0) of every weight tensor's unit (float32; 0 for a tensor of zeros) and levels (int16)."""
        return self._digest.intdigest()

    def fingerprint_with(self, names: Iterable[str]) -> int:
        """The fingerprint of the weights and these plain tensors: floats as float32, integers as int64."""
        digest = self._digest.copy()
        for name in names:
            digest.update(_plain_bytes(self.plain[name]))
        return digest.intdigest()

    def same(self, name: str, array: NDArray[Any]) -> bool:
        """Whether the plain tensor `name` is here, and has these values on the wire."""
        return name in self.plain and _plain_bytes(self.plain[name]) == _plain_bytes(array)

    def cut(self, by: Cutter) -> Snapshot:
        """The part of the snapshot that lies at an `IndexMap`."""
        levels, plain = (
            {name: by.cut(name, array) for name, array in tensors.items()}
            for tensors in (self.levels, self.plain)
        )
        return Snapshot(levels, self.units, plain)

    @cached_property
    def _digest(self) -> xxhash.xxh64:
        digest = xxhash.xxh64()
        for unit, levels in zip(self.units, self.levels.values(), strict=True):
            digest.update(np.float32(unit if levels.any() else 0.0).astype("<f4").tobytes())
            digest.update(np.ascontiguousarray(levels, "<i2").tobytes())
        return digest

    def quantised(self, plain: Tensors) -> Quantised:
        """These weights as the wire carries them, beside the tensors of `plain`."""
        wide = {name: levels.astype(np.int32) for name, levels in self.levels.items()}
        return Quantised(wide, Grid(self.units, (), 0), plain)


def snapshot_of(quantised: Quantised, schema: ModelSchema) -> Snapshot | None:
    """The snapshot that a decoded model amounts to; None where its values are not whole steps of a grid.

    Raises PayloadError("grid") where a level is beyond `LARGEST_TABLE_LEVEL`.
    """
    grid = quantised.grid
    if grid is None or grid.offsets:
        return None
    for spec in schema.weights:
        levels = quantised.levels[spec.name]
        if largest_magnitude(levels) > LARGEST_TABLE_LEVEL:
            raise PayloadError("grid", f"tensor {spec.name!r} has levels beyond {LARGEST_TABLE_LEVEL}")
    narrow = {spec.name: quantised.levels[spec.name].astype(np.int16) for spec in schema.weights}
    units = tuple(float(grid.unit(i, spec)) for i, spec in enumerate(schema.weights))
    return Snapshot(narrow, units, quantised.plain)


def _plain_bytes(array: NDArray[Any]) -> bytes:
    """The values of a plain tensor, whatever width they travel in."""
    return np.ascontiguousarray(array, "<f4" if array.dtype.kind == "f" else "<i8").tobytes()
