"""Snapshots: a version of the global model as integers on its grid, on both ends of the wire."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xxhash
from numpy.typing import NDArray

from slimfleet.compression.codec.native.bindings import largest_magnitude
from slimfleet.compression.codec.quantise.grid import LARGEST_TABLE_LEVEL, Grid, Quantised
from slimfleet.compression.errors import PayloadError
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The weights of a model: level k of a tensor stands for k * 256 * its unit. Buffers and integers are not in it."""

    levels: dict[str, NDArray[np.int16]]
    """Signed levels of the weight tensors by name, at most `LARGEST_TABLE_LEVEL` in magnitude."""
    units: tuple[float, ...]
    """Step / 256 of each weight tensor in schema order, float32."""

    @cached_property
    def fingerprint(self) -> int:
        """XXH64 (seed 0) of every tensor's unit (float32; 0 for a tensor of zeros) and levels (int16)."""
        digest = xxhash.xxh64()
        for unit, levels in zip(self.units, self.levels.values(), strict=True):
            digest.update(np.float32(unit if levels.any() else 0.0).astype("<f4").tobytes())
            digest.update(np.ascontiguousarray(levels, "<i2").tobytes())
        return digest.intdigest()

    def quantised(self, plain: Tensors) -> Quantised:
        """These weights as the wire carries them, beside the buffers and integers of `plain`."""
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
    return Snapshot(narrow, tuple(float(grid.unit(i, spec)) for i, spec in enumerate(schema.weights)))
