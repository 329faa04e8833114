"""Rate control over the native coder: one knob, the step, and a search for it.

Each trial quantises and codes in one go, since the quantiser decides by the prices of the coder. Error and size are
smooth in the step on logarithmic scales, so that a few trials of false position come within 1.5 % of the bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import exp, isfinite, log, sqrt

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.codec.codec import Encoded
from slimfleet.compression.codec.entropy.pack import reference_guess
from slimfleet.compression.codec.native.bindings import (
    LARGEST_LEVEL,
    Levels,
    Part,
    Tally,
    encode_parts,
    expected_class,
    start_class,
)
from slimfleet.compression.codec.quantise.grid import FRACTION, LEAST_UNIT, CodedLevels, Grid, Quantised
from slimfleet.compression.codec.quantise.plain import carried
from slimfleet.compression.codec.quantise.portable_rate import plain_bytes, too_large
from slimfleet.compression.codec.quantise.step import MOST_EXPLICIT, mean_offsets
from slimfleet.compression.codec.quantise.uniform import largest_of
from slimfleet.compression.codec.spec import Aim, Coding
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors
from slimfleet.compression.wire import OVERHEAD_BYTES

TRIES = 12
"""Most trials of one search; it mostly takes four."""
CLOSE = 0.985
"""A search ends at this share of its bound."""
VECTOR_SHIFT = 1
"""Biases and norms get half the step, which costs 0.2 % of the bytes."""
TRELLIS_PRICE, SCALAR_PRICE = 0.2, 0.1
"""Squared steps a bit: the best of a sweep on six updates, where 0.15..0.25 and 0.06..0.12 differ by under 1 %."""
SPARSE_PRICE, SPARSE_FROM, SPARSE_BITS = 0.06, 0.6, 0.06
"""From this NMSE on, or below so many bits a weight, nearly all is zero and a trellis costs more than it gains."""
_ENOUGH = 30
"""Values that must fall on a level for an offset of its own."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What one step gives."""

    step: float
    quantised: Quantised
    nmse: float
    """Of the weight tensors."""

    @property
    def says_something(self) -> bool:
        """Whether any level is not zero."""
        return any(levels.any() for levels in self.quantised.levels.values())


@dataclass(frozen=True, slots=True)
class NativeQuantiser:
    """An update to be quantised at any step."""

    tensors: Tensors
    schema: ModelSchema
    small: bool
    trellis: bool
    price: float
    reference: Tensors | None = None
    energy: float = field(init=False)
    """Squared norm of the weights."""

    def __post_init__(self) -> None:
        squares = (np.square(self.tensors[spec.name], dtype=np.float64) for spec in self.schema.weights)
        object.__setattr__(self, "energy", sum(float(np.sum(each)) for each in squares))

    def at(self, step: float) -> Trial:
        """Quantise and code with `step` for matrices."""
        unit = np.float32(max(step / FRACTION, LEAST_UNIT))
        grid = Grid((float(unit),), (), VECTOR_SHIFT)
        guess = reference_guess(self.reference, grid, self.schema)
        parts, levels, steps = [], [], []
        for index, spec in enumerate(self.schema.weights):
            plain = np.asarray(self.tensors[spec.name], np.float32, order="C")
            values = np.asarray(plain / (grid.unit(index, spec) * FRACTION))
            known = None if guess is None else guess[index]
            if len(spec.shape) < 2:  # too few for a price of their own: to the nearest
                array = np.asarray(np.rint(np.clip(values, -LARGEST_LEVEL, LARGEST_LEVEL)), np.int32)
                part = Part(spec.shape, start_class(array), guess=known)
            else:
                array = np.zeros(spec.shape, np.int32)
                part = Part(spec.shape, expected_class(values), 8 if self.trellis else 1, values, known)
            parts.append(part)
            levels.append(array)
            steps.append(values)
        data = encode_parts(parts, levels, "small" if self.small else "fast", self.price)
        offsets, error = _centre(levels, steps, grid, self.schema)
        quantised = Quantised(
            {spec.name: array for spec, array in zip(self.schema.weights, levels, strict=True)},
            Grid(grid.units, offsets, VECTOR_SHIFT),
            carried(self.tensors, self.schema),
            CodedLevels(self.small, self.trellis, tuple(part.start for part in parts), data),
        )
        return Trial(step, quantised, error * float(unit * FRACTION) ** 2 / self.energy)

    def finest_step(self) -> float:
        """The step that takes the largest value, be it a vector's, to the last level."""
        largest = max((largest_of(self.tensors[spec.name]) for spec in self.schema.weights), default=0.0)
        return float(largest * 2**VECTOR_SHIFT / (LARGEST_LEVEL - 2))

    def first_step(self, target_nmse: float) -> float:
        """A step to begin with: that of uniform noise, which a heavy tail and prices roughly double."""
        weights = [self.tensors[spec.name].ravel() for spec in self.schema.weights]
        squares = sum(float(np.sum(np.square(w, dtype=np.float64))) for w in weights)
        rms = sqrt(squares / max(sum(w.size for w in weights), 1))
        return rms * sqrt(3 * target_nmse) * (1 if self.trellis else 1.6)


def quantiser_for(tensors: Tensors, schema: ModelSchema, aim: Aim, coding: Coding) -> NativeQuantiser:
    """The quantiser that suits `aim`: with a trellis in the small preset, unless nearly all will be zero."""
    sparse = aim.nmse is not None and aim.nmse >= SPARSE_FROM
    if aim.nmse is None and aim.limit_bytes is not None:
        sparse = 8 * aim.limit_bytes < SPARSE_BITS * sum(spec.size for spec in schema.weights)
    small = coding.preset == "small"
    trellis = small and not sparse
    price = TRELLIS_PRICE if trellis else SPARSE_PRICE if sparse else SCALAR_PRICE
    return NativeQuantiser(tensors, schema, small, trellis, price, coding.reference)


def choose(
    quantiser: NativeQuantiser,
    aim: Aim,
    seal_up: Callable[[Quantised], Encoded],
    plain: Callable[[], Encoded],
) -> Encoded:
    """What meets `aim`.

    `plain` gives the update in float32, which is sent for an error of 0, where it is smaller, as for a handful of
    weights, or where levels cannot reach the error. Raises BudgetExceeded("uplink_bytes") when not even one level fits
    the size.
    """

    def size(trial: Trial) -> float:
        return len(seal_up(trial.quantised).payload) if trial.says_something else float("inf")

    found = None
    if aim.nmse:
        first = quantiser.first_step(aim.nmse)
        found = coarsest_within(quantiser, lambda trial: trial.nmse, aim.nmse, first, rising=True)
    chosen = plain() if found is None else seal_up(found.quantised)
    if len(chosen.payload) > plain_bytes(quantiser.schema):
        chosen = min(chosen, plain(), key=lambda encoded: len(encoded.payload))
    if aim.limit_bytes is None or aim.fits(chosen.payload):
        return chosen
    first = quantiser.first_step(aim.nmse or 0.5) if found is None else 1.5 * found.step
    found = coarsest_within(quantiser, size, aim.limit_bytes, first, rising=False)
    if found is None:
        least = size(quantiser.at(quantiser.finest_step() * LARGEST_LEVEL / 4))
        raise too_large(int(least) if isfinite(least) else OVERHEAD_BYTES + 1, aim.limit_bytes)
    return seal_up(found.quantised)


def coarsest_within(
    quantiser: NativeQuantiser,
    value: Callable[[Trial], float],
    bound: float,
    first: float,
    *,
    rising: bool,
) -> Trial | None:
    """The trial whose `value` is nearest below `bound`, looking from step `first` on; None where none is found.

    `rising` says whether the value grows with the step, as the error does, or falls, as the size does.
    """
    inside: Trial | None = None
    outside: Trial | None = None
    finest = quantiser.finest_step()
    step, stride = max(first, finest), 1.5
    for _ in range(TRIES):
        trial = quantiser.at(step)
        if value(trial) <= bound:
            inside = trial
            if value(trial) >= CLOSE * bound:
                break
        else:
            outside = trial
        if inside is None or outside is None:
            if step == finest and (value(trial) <= bound) != rising:
                break  # nothing finer is there
            step = max(step * (stride if (value(trial) <= bound) == rising else 1 / stride), finest)
            stride *= 1.3
        else:
            step = _between(inside, outside, value, CLOSE**0.5 * bound)
    return inside


def _between(inside: Trial, outside: Trial, value: Callable[[Trial], float], aim: float) -> float:
    """Where the line through two trials, on logarithmic scales, meets `aim`; not too near to either."""
    low, high = log(max(value(inside), 1e-30)), log(max(value(outside), 1e-30))
    share = (log(aim) - low) / (high - low) if high != low else 0.5
    share = min(max(share, 0.08), 0.92)
    return exp(log(inside.step) * (1 - share) + log(outside.step) * share)


def _centre(
    levels: list[Levels], steps: list[NDArray[np.float32]], grid: Grid, schema: ModelSchema
) -> tuple[tuple[int, ...], float]:
    """Offsets that move the levels to the means of what they stand for, and the squared error, in squared steps."""
    top = max((int(np.abs(array).max(initial=0)) for array in levels), default=0)
    matrices, vectors = Tally.empty(top), Tally.empty(top)
    for spec, array, values in zip(schema.weights, levels, steps, strict=True):
        (vectors if len(spec.shape) < 2 else matrices).add(array, values)
    offsets = offsets_of(matrices)
    fine = 4.0**-grid.vector_shift
    return offsets, error_of(matrices, offsets) + fine * error_of(vectors, offsets)


def offsets_of(tally: Tally) -> tuple[int, ...]:
    """Offsets that move levels to the means of what they stand for."""
    used = np.flatnonzero(tally.counts[1:]) + 1
    if not used.size:
        return ()
    top, explicit = int(used[-1]), 0
    while explicit < min(top, MOST_EXPLICIT) and tally.counts[explicit + 1] >= _ENOUGH:
        explicit += 1
    return mean_offsets(tally.counts, tally.sums, top, explicit)


def error_of(tally: Tally, offsets: tuple[int, ...]) -> float:
    """Squared error of the levels with these offsets."""
    centres = np.arange(tally.counts.size, dtype=np.float64)
    if offsets:
        which = np.minimum(np.arange(1, centres.size), len(offsets)) - 1
        centres[1:] += np.array(offsets, np.float64)[which] / FRACTION
    return float(np.sum(tally.squares - 2 * centres * tally.sums + tally.counts * centres**2))
