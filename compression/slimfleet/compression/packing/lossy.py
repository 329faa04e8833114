"""Lossy sections: tensors on grids, to an error each or to a rate together."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.codec.native.bindings import Levels, NativePreset
from slimfleet.compression.codec.quantise.grid import FRACTION
from slimfleet.compression.errors import BadInput
from slimfleet.compression.packing.codings import ToError, ToRate
from slimfleet.compression.packing.dtypes import to_float32
from slimfleet.compression.packing.quantiser import (
    Quantised,
    Values,
    Way,
    added,
    centred,
    energy,
    finest,
    quantise,
    units_of,
)
from slimfleet.compression.packing.records import Record
from slimfleet.compression.packing.search import Numbers, meet
from slimfleet.compression.packing.sections import Coded

LEAST_NMSE = {"float16": 1e-6, "bfloat16": 3e-5, "float32": 1e-12, "float64": 1e-12}
"""Below this, rounding to the dtype after the grid would matter, and the values keep their own mantissas instead."""
_OWN_ROUNDING = {"float16": 8e-8, "bfloat16": 5.1e-6, "float32": 0.0, "float64": 0.0}
"""Relative squared error of rounding to the dtype, at most: 4 ** -(bits of the mantissa) / 12."""
_SAMPLE = 1 << 18
"""Elements of a large tensor that a search begins with."""
_CLOSE_LARGE = 0.94
_CAUTION = 0.995
"""What a step that suits a sample is multiplied by."""
_BYTES_BY_STEP = -0.7
"""Power of the step that a size at first is taken to follow; an error follows its square."""


@dataclass(slots=True)
class Lossy:
    """A tensor for a grid; coding it fills in its record's grid and the two sums."""

    record: Record
    array: NDArray[Any]
    """As its dtype holds it."""
    coding: ToError | ToRate
    error: float = 0.0
    """Sum of squared errors."""
    energy: float = 0.0
    """Sum of squares."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A tensor whose levels are what they are."""

    record: Record
    levels: Levels


def code_group(items: Sequence[Lossy | Settled], preset: NativePreset) -> Coded:
    """One section of whole tensors, all of them settled or to an error, or all of them to a rate."""
    lossy = [item for item in items if isinstance(item, Lossy)]
    tensors: list[NDArray[Any]] = [
        to_float32(item.array, item.record.dtype) if isinstance(item, Lossy) else item.levels
        for item in items
    ]
    if not lossy:
        return quantise(tensors, (), Way.to(preset, 0)).coded
    values = [tensor for tensor in tensors if tensor.dtype == np.float32]
    for item, tensor in zip(lossy, values, strict=True):
        item.energy = energy(tensor)
    made = _searched(lossy, values, tensors, Way.to(preset, min(item.coding.nmse for item in lossy)))
    for item, unit, tally in zip(lossy, made.units, made.tallies, strict=True):
        item.record.unit = unit
        item.record.offsets, item.error = centred(tally, unit)
    return made.coded


def _searched(
    lossy: Sequence[Lossy], values: Sequence[Values], tensors: Sequence[NDArray[Any]], way: Way
) -> Quantised:
    """`tensors`, of which `values` are to be quantised, at the steps that meet the errors, or the rate, of `lossy`."""
    first = np.array([_first(item, way) for item in lossy])
    least = np.array([finest(tensor) for tensor in values])
    energies = np.array([item.energy for item in lossy])

    def errors(steps: Numbers) -> tuple[Numbers, Quantised]:
        made = quantise(tensors, units_of(steps), way)
        pairs = zip(made.tallies, made.units, strict=True)
        return np.array([centred(tally, unit)[1] for tally, unit in pairs]) / energies, made

    def sizes(scale: Numbers) -> tuple[Numbers, Quantised]:
        made = quantise(tensors, units_of(np.maximum(first * scale[0], least)), way)
        return np.array([float(len(made.coded.data))]), made

    if isinstance(lossy[0].coding, ToError):
        found = meet(errors, np.array([_bound_of(item) for item in lossy]), first, least, 2.0)
    else:
        budget = np.array([sum(map(_bytes_of, lossy))])
        found = meet(sizes, budget, np.ones(1), np.full(1, 1e-6), _BYTES_BY_STEP)
    if found is None:
        raise _unreachable(lossy)
    return found[1]


def code_large(lossy: Lossy, preset: NativePreset, pool: Executor) -> list[Coded]:
    """The sections of a tensor that is cut into parts of `record.part` elements, coded side by side."""
    record, flat = lossy.record, lossy.array.reshape(-1)
    way = Way.to(preset, lossy.coding.nmse)
    inner = record.shape[1:]
    parts = [
        flat[start : start + record.part].reshape(-1, *inner) for start in range(0, flat.size, record.part)
    ]

    def values(part: NDArray[Any]) -> Values:
        return to_float32(part, record.dtype)

    lossy.energy = sum(pool.map(lambda part: energy(values(part)), parts))
    least = np.array([max(pool.map(lambda part: finest(values(part)), parts))])

    def trial(steps: Numbers) -> tuple[Numbers, list[Quantised]]:
        units = units_of(steps)
        made = list(pool.map(lambda part: quantise([values(part)], units, way), parts))
        if isinstance(lossy.coding, ToRate):
            return np.array([float(sum(len(each.coded.data) for each in made))]), made
        _, error = centred(added([each.tallies[0] for each in made]), units[0])
        return np.array([error / lossy.energy]), made

    to_error = isinstance(lossy.coding, ToError)
    bound = np.array([_bound_of(lossy) if to_error else _bytes_of(lossy)])
    slope = 2.0 if to_error else _BYTES_BY_STEP
    found = meet(trial, bound, np.array([_sampled(lossy, way)]), least, slope, _CLOSE_LARGE)
    if found is None:
        raise _unreachable([lossy])
    made = found[1]
    record.unit = made[0].units[0]
    record.offsets, lossy.error = centred(added([each.tallies[0] for each in made]), record.unit)
    return [each.coded for each in made]


def _sampled(lossy: Lossy, way: Way) -> float:
    """The step that suits some rows of a large tensor."""
    rows = lossy.array.shape[0]
    wanted = max(_SAMPLE * rows // lossy.array.size, 1)
    chosen = np.linspace(0, rows - 1, min(wanted, rows)).astype(np.intp)
    sample = Lossy(lossy.record, np.ascontiguousarray(lossy.array[chosen]), lossy.coding)
    tensor = to_float32(sample.array, lossy.record.dtype)
    sample.energy = energy(tensor)
    if not sample.energy:
        return _first(lossy, way)
    made = _searched([sample], [tensor], [tensor], way)
    return made.units[0] * FRACTION * _CAUTION


def _bytes_of(lossy: Lossy) -> float:
    """The bytes that a rate leaves to a tensor."""
    return lossy.coding.bits * lossy.array.size / 8 if isinstance(lossy.coding, ToRate) else 0.0


def _bound_of(lossy: Lossy) -> float:
    """The error that is left to the grid, relative to the tensor's squares."""
    return lossy.coding.nmse - _OWN_ROUNDING[lossy.record.dtype.name]


def _first(lossy: Lossy, way: Way) -> float:
    return way.first_step((lossy.energy / lossy.array.size) ** 0.5, lossy.coding.nmse)


def _unreachable(lossy: Sequence[Lossy]) -> BadInput:
    names = ", ".join(repr(item.record.name) for item in lossy[:3])
    return BadInput(f"the error or the rate asked for cannot be met for tensor {names}: pack it losslessly")
