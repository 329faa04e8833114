"""Uniform quantisation of the weights to a few levels per sign, deterministic or unbiased.

The wire carries a grid (one step for all weight tensors, or one for each) and integers. One step for all is
the reverse water-filling answer to "least squared error for the bytes", and measures so on real updates; a
step for each tensor keeps the relative precision of every layer, which is what a whole model needs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.codec.quantise.grid import FRACTION, LEAST_UNIT, Grid, Quantised, dequantise
from slimfleet.compression.codec.quantise.plain import carry
from slimfleet.compression.codec.quantise.sparsify import emphasis, magnitudes, weights_of
from slimfleet.compression.codec.quantise.step import deadzone_step, stochastic_step
from slimfleet.compression.codec.stage import Stage, stateless
from slimfleet.compression.schema import ModelSchema, TensorSpec
from slimfleet.compression.types import Tensors

Array = NDArray[np.float32]
Round = Callable[[Array], Array]
"""Magnitudes in steps -> whole numbers of steps."""

DEADZONE_ROUNDING = 0.35
"""In a sparse update a magnitude of k steps is rounded up from k + 1 - 0.35: fewer bytes at equal error."""
_EXPLICIT = 8
"""Up to this many levels each get an offset; with more, the first three do and the rest share one."""


def quantise_deadzone(
    schema: ModelSchema, bits: int, *, sparse: bool, one_step: bool, vector_shift: int
) -> Stage[Tensors, Quantised, None]:
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

    def encode(tensors: Tensors) -> Quantised:
        steps = _steps(tensors, schema, choose, one_step, vector_shift)
        return _quantise(tensors, schema, steps, nearest, levels, vector_shift, centred=True)

    return stateless(encode, lambda quantised: dequantise(quantised, schema))


def quantise_stochastic(
    schema: ModelSchema,
    bits: int,
    rng: np.random.Generator,
    *,
    sparsity: float,
    one_step: bool,
    vector_shift: int,
) -> Stage[Tensors, Quantised, None]:
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

    def encode(tensors: Tensors) -> Quantised:
        steps = _steps(tensors, schema, choose, one_step, vector_shift)
        return _quantise(tensors, schema, steps, either, levels, vector_shift, centred=False)

    return stateless(encode, lambda quantised: dequantise(quantised, schema))


def model_units(tensors: Tensors, schema: ModelSchema, bits: int, vector_shift: int) -> tuple[float, ...]:
    """Step / 256 that suits each weight tensor of a whole model, float32, in schema order.

    The step of `quantise_deadzone` for a matrix, though never so fine that nearest rounding takes a value beyond twice
    `2 ** (bits - 1)` levels; the step that just reaches the largest value for a vector, which is too short to pay for a
    longer frequency table.
    """
    return tuple(_model_unit(tensors[spec.name], spec, bits, vector_shift) for spec in weights_of(schema))


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


def _steps(
    tensors: Tensors,
    schema: ModelSchema,
    choose: Callable[[Array, float], float],
    one_step: bool,
    vector_shift: int,
) -> list[np.float32]:
    """Units (step / 256) as the wire carries them: one, or one for each weight tensor."""
    groups = [schema] if one_step else [ModelSchema((spec,)) for spec in weights_of(schema)]
    units = []
    for group in groups:
        values = magnitudes(tensors, group, vector_shift)
        largest = max((largest_of(tensors[spec.name]) for spec in weights_of(group)), default=0.0)
        step = choose(values, largest) if largest else 0.0
        units.append(np.float32(max(step / FRACTION, LEAST_UNIT)))
    return units


def largest_of(array: NDArray[np.generic]) -> float:
    """Largest magnitude; 0 of nothing."""
    return max(float(array.max()), -float(array.min())) if array.size else 0.0


def _quantise(
    tensors: Tensors,
    schema: ModelSchema,
    units: list[np.float32],
    round_to: Round,
    levels: int,
    vector_shift: int,
    *,
    centred: bool,
) -> Quantised:
    signed: dict[str, NDArray[np.int32]] = {}
    tally = _Tally(levels << vector_shift)
    for index, spec in enumerate(weights_of(schema)):
        x = tensors[spec.name].astype(np.float32)
        scale = emphasis(spec, vector_shift)
        step = np.float32(units[index if len(units) > 1 else 0] * FRACTION / scale)
        steps = (np.abs(x) / step).astype(np.float32)
        whole = np.minimum(round_to(steps), np.float32(levels) * scale).astype(np.int32)
        if centred:
            tally.add(steps, whole)
        signed[spec.name] = np.where(np.signbit(x), -whole, whole)
    grid = Grid(tuple(map(float, units)), tally.offsets() if centred else (), vector_shift)
    return Quantised(signed, grid, {s.name: carry(tensors[s.name], s) for s in _others(schema)})


def _others(schema: ModelSchema) -> list[TensorSpec]:
    return [spec for spec in schema.tensors if spec.kind != "weight"]


class _Tally:
    """Counts and sums of the magnitudes that fell on each level, for their means."""

    def __init__(self, top: int) -> None:
        self._counts = np.zeros(top + 1)
        self._sums = np.zeros(top + 1)

    def add(self, steps: Array, whole: NDArray[np.int32]) -> None:
        used = np.flatnonzero(whole)
        levels = whole.ravel()[used]
        self._counts += np.bincount(levels, minlength=self._counts.size)
        self._sums += np.bincount(levels, weights=steps.ravel()[used], minlength=self._sums.size)

    def offsets(self) -> tuple[int, ...]:
        """Distance of the means from their levels in 1/256 steps; empty when nothing is left."""
        used = np.flatnonzero(self._counts)
        if not used.size:
            return ()
        top = int(used[-1])
        excess = self._sums - self._counts * np.arange(self._counts.size)
        explicit = top if top <= _EXPLICIT else 3
        pooled = [(excess[k], self._counts[k]) for k in range(1, explicit + 1)]
        if top > explicit:
            pooled.append((excess[explicit + 1 :].sum(), self._counts[explicit + 1 :].sum()))
        means = [FRACTION * total / count if count else 0.0 for total, count in pooled]
        return tuple(int(np.clip(round(mean), 1 - FRACTION, 2**15 - 1)) for mean in means)
