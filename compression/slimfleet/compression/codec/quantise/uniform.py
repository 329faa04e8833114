"""Uniform quantisation of the weights to a few levels per sign, deterministic or unbiased.

The wire carries a grid (one step for all weight tensors, or one for each) and integers. One step for all is
the reverse water-filling answer to "least squared error for the bytes", and measures so on real updates; a
step for each tensor keeps the relative precision of every layer, which is what a whole model needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.codec.quantise.grid import FRACTION, LEAST_UNIT, Grid, Quantised
from slimfleet.compression.codec.quantise.plain import carried
from slimfleet.compression.codec.quantise.sparsify import emphasis, magnitudes
from slimfleet.compression.codec.quantise.step import (
    MOST_EXPLICIT,
    deadzone_step,
    mean_offsets,
    stochastic_step,
)
from slimfleet.compression.schema import ModelSchema, TensorSpec
from slimfleet.compression.types import Tensors

Array = NDArray[np.float32]
Signed = dict[str, NDArray[np.int32]]
Round = Callable[[Array], Array]
"""Magnitudes in steps -> whole numbers of steps."""

DEADZONE_ROUNDING = 0.35
"""In a sparse update a magnitude of k steps is rounded up from k + 1 - 0.35: fewer bytes at equal error."""
_EXPLICIT_OF_MANY = 3
"""Levels with an offset of their own where there are more than `MOST_EXPLICIT`."""


def quantise_deadzone(
    tensors: Tensors, schema: ModelSchema, bits: int, *, sparse: bool, one_step: bool, vector_shift: int
) -> Quantised:
    """Quantise to `2 ** (bits - 1)` levels per sign, each level reconstructed at the mean of what fell on it.

    `sparse` says that zeros were chosen by a sparsifier: every other value keeps at least one step, and the
    others are rounded with a deadzone; without it, rounding is to the nearest. The step minimises the
    squared error, which may clip the largest values. Vectors have `2 ** vector_shift` times as many levels,
    and a finer step.
    """
    levels = 1 << (bits - 1)
    rounding = DEADZONE_ROUNDING if sparse else 0.5

    def nearest(steps: Array) -> Array:
        whole: Array = np.floor(steps + np.float32(rounding))
        return np.where(steps > 0, np.maximum(whole, 1), 0).astype(np.float32) if sparse else whole

    def choose(values: Array, largest: float) -> float:
        return deadzone_step(values, largest, levels, rounding, sparse)

    units = _units(tensors, schema, choose, one_step, vector_shift)
    grid = Grid(units, (), vector_shift)
    counts, sums = (np.zeros((levels << vector_shift) + 1) for _ in range(2))
    signed: Signed = {}
    for name, steps, whole, signs in _rounded(tensors, schema, grid, nearest, levels):
        _count(steps, whole, counts, sums)
        signed[name] = np.where(signs, -whole, whole)
    return Quantised(signed, replace(grid, offsets=_offsets(counts, sums)), carried(tensors, schema))


def quantise_stochastic(
    tensors: Tensors,
    schema: ModelSchema,
    bits: int,
    rng: np.random.Generator,
    *,
    sparsity: float,
    one_step: bool,
    vector_shift: int,
) -> Quantised:
    """Unbiased quantisation: a magnitude goes to one of its two neighbours so that the mean is the magnitude.

    As QSGD (Alistarh et al. 2017, section 3.1), with a step of at least the largest magnitude / `2 ** (bits
    - 1)`: nothing is clipped. The step is made so coarse that the expected share of zeros is at least
    `sparsity`.
    """
    levels = 1 << (bits - 1)

    def either(steps: Array) -> Array:
        dithered: Array = np.floor(steps + rng.random(steps.shape, dtype=np.float32))
        return dithered

    def choose(values: Array, largest: float) -> float:
        return stochastic_step(values, largest, levels, sparsity)

    grid = Grid(_units(tensors, schema, choose, one_step, vector_shift), (), vector_shift)
    rounded = _rounded(tensors, schema, grid, either, levels)
    signed = {name: np.where(signs, -whole, whole) for name, _, whole, signs in rounded}
    return Quantised(signed, grid, carried(tensors, schema))


def model_units(tensors: Tensors, schema: ModelSchema, bits: int, vector_shift: int) -> tuple[float, ...]:
    """Step / 256 that suits each weight tensor of a whole model, float32, in schema order.

    The step of `quantise_deadzone` for a matrix, though never so fine that nearest rounding takes a value beyond twice
    `2 ** (bits - 1)` levels; the step that just reaches the largest value for a vector, which is too short to pay for a
    longer frequency table.
    """
    return tuple(_model_unit(tensors[spec.name], spec, bits, vector_shift) for spec in schema.weights)


def _model_unit(array: NDArray[np.generic], spec: TensorSpec, bits: int, vector_shift: int) -> float:
    levels, largest = 1 << (bits - 1), largest_of(array)
    if len(spec.shape) < 2:
        step = largest / (levels << vector_shift)
    elif largest:
        values = np.abs(array, dtype=np.float32).ravel()
        step = max(deadzone_step(values, largest, levels, 0.5, False), largest / (2 * levels))
    else:
        step = 0.0
    return float(np.float32(max(step / FRACTION, LEAST_UNIT)))


def largest_of(array: NDArray[np.generic]) -> float:
    """Largest magnitude; 0 of nothing."""
    return max(float(array.max()), -float(array.min())) if array.size else 0.0


def _units(
    tensors: Tensors,
    schema: ModelSchema,
    choose: Callable[[Array, float], float],
    one_step: bool,
    vector_shift: int,
) -> tuple[float, ...]:
    """Step / 256, float32: one for all weights, or one for each weight tensor."""
    groups = [schema] if one_step else [ModelSchema((spec,)) for spec in schema.weights]
    units = []
    for group in groups:
        values = magnitudes(tensors, group, vector_shift)
        largest = max((largest_of(tensors[spec.name]) for spec in group.weights), default=0.0)
        step = choose(values, largest) if largest else 0.0
        units.append(float(np.float32(max(step / FRACTION, LEAST_UNIT))))
    return tuple(units)


def _rounded(
    tensors: Tensors, schema: ModelSchema, grid: Grid, round_to: Round, levels: int
) -> Iterator[tuple[str, Array, NDArray[np.int32], NDArray[np.bool_]]]:
    """Of each weight tensor: its name, magnitudes in steps, the levels that these become, and where it is negative."""
    for index, spec in enumerate(schema.weights):
        x = tensors[spec.name].astype(np.float32)
        scale = emphasis(spec, grid.vector_shift)
        step = np.float32(np.float32(grid.units[index if len(grid.units) > 1 else 0]) * FRACTION / scale)
        steps = (np.abs(x) / step).astype(np.float32)
        whole = np.minimum(round_to(steps), np.float32(levels) * scale).astype(np.int32)
        yield spec.name, steps, whole, np.signbit(x)


def _count(
    steps: Array, whole: NDArray[np.int32], counts: NDArray[np.float64], sums: NDArray[np.float64]
) -> None:
    """Add to the counts and sums of the magnitudes that fell on each level from 1 on."""
    used = np.flatnonzero(whole)
    levels = whole.ravel()[used]
    counts += np.bincount(levels, minlength=counts.size)
    sums += np.bincount(levels, weights=steps.ravel()[used], minlength=sums.size)


def _offsets(counts: NDArray[np.float64], sums: NDArray[np.float64]) -> tuple[int, ...]:
    used = np.flatnonzero(counts)
    if not used.size:
        return ()
    top = int(used[-1])
    beyond = sums - counts * np.arange(counts.size)
    return mean_offsets(
        counts.tolist(), beyond.tolist(), top, top if top <= MOST_EXPLICIT else _EXPLICIT_OF_MANY
    )
