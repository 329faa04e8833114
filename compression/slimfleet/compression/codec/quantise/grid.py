"""Grid: the values that a decoder can produce, and the integers that point into it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.codec.native.bindings import LARGEST_LEVEL, dequantise_levels, largest_magnitude
from slimfleet.compression.codec.native.library import load
from slimfleet.compression.errors import PayloadError
from slimfleet.compression.schema import ModelSchema, TensorSpec
from slimfleet.compression.types import Tensors

FRACTION = 256
"""Steps of a level's offset within one quantiser step."""
LEAST_UNIT = 2.0**-120
"""A unit stays clear of subnormal numbers, which some processors flush to zero."""
LARGEST_TABLE_LEVEL = 1 << 10
"""Of the portable coder's frequency tables, and of published models."""
LARGEST_VALUE = 2.0**100
"""Beyond any real weight, and far enough from the end of float32 for every product with a unit."""
_BLOCK = 1 << 14
_OVERFLOW = 2.0**128 - 2.0**103
"""From here on a number rounds to infinity in float32."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Level k > 0 is `(k * 256 + offsets[min(k, len(offsets)) - 1]) * unit`, level -k its negative.

    The integer factor is below 2**24 in magnitude, so its product with the float32 `unit` is rounded once:
    every machine gets the same float32.
    """

    units: tuple[float, ...]
    """Quantiser step / 256, float32: one for all weight tensors, or one for each in schema order."""
    offsets: tuple[int, ...]
    """int16 corrections of the levels towards the means of what they stand for; the last serves the rest."""
    vector_shift: int
    """Tensors of fewer than two dimensions use `unit * 2 ** -vector_shift`; 0..3."""

    def unit(self, index: int, spec: TensorSpec) -> np.float32:
        """Unit of the weight tensor that is number `index` among the weights."""
        unit = np.float32(self.units[index if len(self.units) > 1 else 0])
        return unit * np.float32(2.0**-self.vector_shift) if len(spec.shape) < 2 else unit

    def check(self, levels: NDArray[np.int32], unit: np.float32) -> None:
        """Make sure that positive levels up to the largest of `levels` stand for positive, finite values.

        Raises PayloadError("nonfinite") when one overflows, ("grid") when one has changed its sign.
        """
        if self._sound(LARGEST_LEVEL, unit):  # nearly always, so that few levels need to be looked through
            return
        top = largest_magnitude(levels)
        if top and not self._sound(top, unit):
            changed = min(self._ends(top)) <= 0
            raise PayloadError(
                "grid" if changed else "nonfinite",
                f"a quantiser level {'is not positive' if changed else 'overflows float32'}",
            )

    def _sound(self, top: int, unit: np.float32) -> bool:
        ends = self._ends(top)
        return min(ends) > 0 and max(ends) * float(unit) < _OVERFLOW

    def _ends(self, top: int) -> list[int]:
        """Factors of the levels 1..top, but for stretches where they only grow."""
        explicit = [k * FRACTION + offset for k, offset in enumerate(self.offsets[:top], 1)]
        return [*explicit, self._factor(top)]

    def values(self, top: int, unit: np.float32) -> NDArray[np.float32]:
        """The values of the levels 0, 1 .. top, -top .. -1, so that a signed level indexes them directly."""
        positive = np.array([self._factor(level) for level in range(top + 1)], np.float32) * unit
        return np.concatenate([positive, -positive[:0:-1]])

    def _factor(self, level: int) -> int:
        """What `unit` is multiplied by for `level` >= 0."""
        return level * FRACTION + (
            self.offsets[min(level, len(self.offsets)) - 1] if self.offsets and level else 0
        )


@dataclass(frozen=True, slots=True)
class CodedLevels:
    """Levels of the weight tensors as the native coder wrote them, and what a decoder needs to read them."""

    small: bool
    """Whether by the small preset."""
    trellis: bool
    """Whether the levels of matrices follow the trellis."""
    starts: tuple[int, ...]
    """Class of the mean magnitude of each weight tensor, 0..63; 0 for a tensor of zeros."""
    data: bytes


@dataclass(frozen=True, slots=True)
class Quantised:
    """An update as the wire carries it: integers on a grid, and what travels plainly."""

    levels: dict[str, NDArray[np.int32]]
    """Signed levels of the weight tensors in their shapes; empty when the weights travel as float32."""
    grid: Grid | None
    plain: Tensors
    """Everything else: buffers in float16 or float32, integers in their own dtype, float32 weights. What is missing is
    zeros in an update, and as held in a change."""
    coded: CodedLevels | None = None
    """The levels as bytes, where the quantiser has coded them already."""


def dequantise(quantised: Quantised, schema: ModelSchema) -> Tensors:
    """The tensors that a decoder gets from a quantised update, in the dtypes and the order of the schema.

    Raises PayloadError: grid or nonfinite.
    """
    tensors: Tensors = {}
    index = 0
    for spec in schema.tensors:
        if spec.kind == "weight" and quantised.grid is not None:
            levels = quantised.levels[spec.name]
            tensors[spec.name] = _look_up(levels, quantised.grid, quantised.grid.unit(index, spec), spec)
        else:
            plain = quantised.plain.get(spec.name)
            tensors[spec.name] = np.zeros(spec.shape, spec.dtype) if plain is None else _cast(plain, spec)
        index += spec.kind == "weight"
    return tensors


def dequantised(levels: NDArray[np.int32], grid: Grid, unit: np.float32) -> NDArray[np.float32]:
    """What levels within +-LARGEST_LEVEL stand for at a unit. Raises PayloadError: grid or nonfinite."""
    grid.check(levels, unit)
    return _look_up_block(
        levels, grid, unit, None if load() else grid.values(largest_magnitude(levels), unit)
    )


def _look_up_block(
    levels: NDArray[np.int32], grid: Grid, unit: np.float32, values: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    if values is None:
        return dequantise_levels(levels, unit, np.array(grid.offsets, np.int16))
    return np.asarray(values[levels])


def _look_up(
    levels: NDArray[np.int32], grid: Grid, unit: np.float32, spec: TensorSpec
) -> NDArray[np.generic]:
    if spec.dtype == "float32":
        return dequantised(levels, grid, unit)
    grid.check(levels, unit)
    values = None if load() else grid.values(largest_magnitude(levels), unit)
    # In blocks, so that intermediate arrays stay small.
    flat = levels.reshape(-1)
    result = np.empty(flat.size, spec.dtype)
    most = np.float32(min(np.finfo(spec.dtype).max, np.finfo(np.float32).max))
    for start in range(0, flat.size, _BLOCK):
        block = _look_up_block(flat[start : start + _BLOCK], grid, unit, values)
        # A step that suits other tensors may be beyond what float16 holds.
        result[start : start + _BLOCK] = np.clip(block, -most, most)
    return result.reshape(spec.shape)


def _cast(array: NDArray[np.generic], spec: TensorSpec) -> NDArray[np.generic]:
    with np.errstate(over="ignore"):
        cast = array.astype(spec.dtype)
    if spec.kind == "integer":
        return cast
    finite = np.isfinite(cast)
    if not (finite.all() if spec.kind == "weight" else np.array_equal(finite, np.isfinite(array))):
        raise PayloadError("nonfinite", f"tensor {spec.name!r} holds values that {spec.dtype} cannot")
    return cast
