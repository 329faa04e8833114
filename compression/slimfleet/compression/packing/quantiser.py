"""Quantiser of packing: tensors to levels at an error each, or at a size together.

As `codec.quantise.native_rate`, but with a step for each tensor, since a model needs the relative precision of every
layer; the steps of all are searched at once, so that tensors which share a section are priced by what they share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.codec.native.bindings import (
    LARGEST_LEVEL,
    Levels,
    NativePreset,
    Part,
    expected_class,
)
from slimfleet.compression.codec.native.library import load
from slimfleet.compression.codec.native.trials import TALLIED, Tally
from slimfleet.compression.codec.quantise.grid import FRACTION, LEAST_UNIT
from slimfleet.compression.codec.quantise.native_rate import (
    SCALAR_PRICE,
    SPARSE_FROM,
    SPARSE_PRICE,
    TRELLIS_PRICE,
    error_of,
    offsets_of,
)
from slimfleet.compression.codec.quantise.uniform import largest_of
from slimfleet.compression.packing.sections import Coded, code_levels, part_of

Values = NDArray[np.float32]
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Quantised:
    """Tensors on their grids."""

    units: tuple[float, ...]
    """Quantiser step / 256 of each tensor."""
    coded: Coded
    tallies: tuple[Tally, ...]


def units_of(steps: Numbers) -> tuple[float, ...]:
    """The units, float32, that steps come down to."""
    return tuple(float(np.float32(max(step / FRACTION, LEAST_UNIT))) for step in steps)


@dataclass(frozen=True, slots=True)
class Way:
    """How levels are chosen and coded."""

    preset: NativePreset
    trellis: bool
    """Of matrices."""
    price: float
    """Squared steps a bit."""

    @classmethod
    def to(cls, preset: NativePreset, nmse: float) -> Way:
        """What suits an error: where nearly all is zero, a trellis costs more than it gains."""
        if nmse >= SPARSE_FROM:
            return cls(preset, False, SPARSE_PRICE)
        trellis = preset == "small" and load() is not None
        return cls(preset, trellis, TRELLIS_PRICE if trellis else SCALAR_PRICE)

    def first_step(self, rms: float, nmse: float) -> float:
        """A step to begin a search with: that of uniform noise, which prices make coarser."""
        return rms * float(np.sqrt((3 if self.trellis else 8) * nmse))


def quantise(tensors: Sequence[NDArray[Any]], units: Sequence[float], way: Way) -> Quantised:
    """Code tensors as one section, in their order: float32 ones are quantised, int32 ones are levels already.

    `units` are those of the float32 tensors.
    """
    parts: list[Part] = []
    levels: list[Levels] = []
    tallied: list[tuple[Levels, Values]] = []
    left = iter(units)
    for tensor in tensors:
        if tensor.dtype == np.int32:
            parts.append(part_of(tensor))
            levels.append(tensor)
            continue
        values = np.asarray(tensor / (np.float32(next(left)) * np.float32(FRACTION)), np.float32, order="C")
        if load() is None:
            array = np.asarray(np.rint(np.clip(values, -LARGEST_LEVEL, LARGEST_LEVEL)), np.int32)
            parts.append(Part(values.shape, 0))
        else:
            array = np.zeros(values.shape, np.int32)
            states = 8 if way.trellis and values.ndim > 1 else 1
            parts.append(Part(values.shape, expected_class(values), states, values))
        levels.append(array)
        tallied.append((array, values))
    coded = code_levels(parts, levels, way.preset, way.price)
    return Quantised(tuple(units), coded, tuple(_tally(array, values) for array, values in tallied))


def centred(tally: Tally, unit: float) -> tuple[tuple[int, ...], float]:
    """Offsets of a grid, and the squared error with them."""
    offsets = offsets_of(tally)
    step = float(np.float32(unit) * np.float32(FRACTION))
    return offsets, error_of(tally, offsets) * step**2


def added(tallies: Sequence[Tally]) -> Tally:
    """The tally of several parts of one tensor."""
    return Tally(np.sum([tally.rows for tally in tallies], axis=0))


def _tally(levels: Levels, values: Values) -> Tally:
    tally = Tally()
    if load() is not None:
        tally.add(levels, values)
        return tally
    size, flat = np.abs(levels).reshape(-1), values.reshape(-1).astype(np.float64)
    beyond = np.where(levels.reshape(-1) != 0, flat * np.sign(levels.reshape(-1)), np.abs(flat)) - size
    which = np.minimum(size, TALLIED - 1)
    for column, weights in enumerate((None, beyond, beyond**2)):
        tally.rows[:, column] = np.bincount(which, weights, TALLIED)
    return tally


def energy(tensor: Values) -> float:
    """Sum of squares."""
    return float(np.sum(np.square(tensor, dtype=np.float64)))


def finest(tensor: Values) -> float:
    """The step that takes the largest value to the last level."""
    return largest_of(tensor) / (LARGEST_LEVEL - 2)
