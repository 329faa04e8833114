"""Rate control over the native coder: one knob, the step, and a search for it.

Each trial quantises and codes in one go, since the quantiser decides by the prices of the coder. Towards an error the
search moves along the curve that the magnitudes let expect; error and size are smooth in the step on logarithmic
scales, so that false position does the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import exp, isfinite, log

import numpy as np

from slimfleet.compression.codec.codec import Encoded
from slimfleet.compression.codec.entropy.pack import reference_guess
from slimfleet.compression.codec.native.bindings import LARGEST_LEVEL
from slimfleet.compression.codec.native.trials import TALLIED, Tally, Trials
from slimfleet.compression.codec.quantise.error_curve import ErrorCurve
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
"""Most trials of one search; towards an error it mostly takes two."""
CLOSE, NEAR = 0.985, 0.97
"""A search ends at this share of its bound: the lesser one for a small error, where it costs 0.3 % of the bytes and
spares every fourth trial."""
_SMALL_ERROR = 0.15
_TRUSTED = 3
"""Trials in which the curve is followed: where they do not suffice, it is of no use."""
_NARROW = 1.002
"""Steps as near as this to each other err alike but for chance."""
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
    _weights: Trials = field(init=False)
    _plain: Tensors = field(init=False)

    def __post_init__(self) -> None:
        arrays = [np.asarray(self.tensors[spec.name], np.float32, order="C") for spec in self.schema.weights]
        weights = Trials(arrays, "small" if self.small else "fast", trellis=self.trellis, price=self.price)
        object.__setattr__(self, "_weights", weights)
        object.__setattr__(self, "energy", float(np.sum(np.square(weights.weights, dtype=np.float64))))
        object.__setattr__(self, "_plain", carried(self.tensors, self.schema))

    def at(self, step: float) -> Trial:
        """Quantise and code with `step` for matrices."""
        unit = np.float32(max(step / FRACTION, LEAST_UNIT))
        grid = Grid((float(unit),), (), VECTOR_SHIFT)
        guess = reference_guess(self.reference, grid, self.schema)
        coarse, fine = unit * FRACTION, unit * np.float32(2.0**-VECTOR_SHIFT) * FRACTION
        found = self._weights.at(coarse, fine, guess)
        offsets = offsets_of(found.matrices)
        error = error_of(found.matrices, offsets) + 4.0**-VECTOR_SHIFT * error_of(found.vectors, offsets)
        quantised = Quantised(
            {spec.name: array for spec, array in zip(self.schema.weights, found.levels, strict=True)},
            Grid(grid.units, offsets, VECTOR_SHIFT),
            self._plain,
            CodedLevels(self.small, self.trellis, found.starts, found.data),
        )
        return Trial(step, quantised, error * float(coarse) ** 2 / self.energy)

    def finest_step(self) -> float:
        """The step that takes the largest value, be it a vector's, to the last level."""
        return float(largest_of(self._weights.weights) * 2**VECTOR_SHIFT / (LARGEST_LEVEL - 2))

    def error_curve(self) -> ErrorCurve:
        """What error each step is expected to give."""
        return ErrorCurve(self._weights.weights, self.energy, price=self.price, trellis=self.trellis)


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

    found = _within_error(quantiser, aim.nmse) if aim.nmse else None
    chosen = plain() if found is None else seal_up(found.quantised)
    if len(chosen.payload) > plain_bytes(quantiser.schema):
        chosen = min(chosen, plain(), key=lambda encoded: len(encoded.payload))
    if aim.limit_bytes is None or aim.fits(chosen.payload):
        return chosen
    first = quantiser.error_curve().step_for(aim.nmse or 0.5) if found is None else 1.5 * found.step
    found = _nearest_below(quantiser, size, aim.limit_bytes, first, rising=False)
    if found is None:
        least = size(quantiser.at(quantiser.finest_step() * LARGEST_LEVEL / 4))
        raise too_large(int(least) if isfinite(least) else OVERHEAD_BYTES + 1, aim.limit_bytes)
    return seal_up(found.quantised)


def _within_error(quantiser: NativeQuantiser, bound: float) -> Trial | None:
    """The trial whose error is nearest below `bound`; None where none is found."""
    enough = NEAR if bound <= _SMALL_ERROR else CLOSE
    curve, aim = quantiser.error_curve(), enough**0.5 * bound
    return _nearest_below(
        quantiser,
        lambda trial: trial.nmse,
        bound,
        curve.step_for(aim),
        rising=True,
        enough=enough,
        follow=lambda trial: curve.moved(trial.step, trial.nmse, aim),
    )


def _nearest_below(
    quantiser: NativeQuantiser,
    value: Callable[[Trial], float],
    bound: float,
    first: float,
    *,
    rising: bool,
    enough: float = CLOSE,
    follow: Callable[[Trial], float] | None = None,
) -> Trial | None:
    """The trial whose `value` is nearest below `bound`, looking from step `first` on; None where none is found.

    `rising` says whether the value grows with the step, as the error does, or falls, as the size does; `enough`, which
    share of the bound will do; `follow`, where a trial lets expect the bound.
    """
    inside: Trial | None = None
    outside: Trial | None = None
    finest = quantiser.finest_step()
    step, stride = max(first, finest), 1.5
    for tried in range(1, TRIES + 1):
        trial = quantiser.at(step)
        fits = value(trial) <= bound
        if fits:
            inside = trial
            if value(trial) >= enough * bound:
                break
        else:
            outside = trial
        expected = follow(trial) if follow and tried < _TRUSTED else 0.0
        if inside and outside:
            low, high = sorted((inside.step, outside.step))
            if high < _NARROW * low:
                break
            if not low * _NARROW < expected < high / _NARROW:
                expected = _between(inside, outside, value, enough**0.5 * bound)
            step = expected
        else:
            coarser = fits == rising
            if step == finest and not coarser:
                break  # nothing finer is there
            if not expected or (expected > step) != coarser:
                expected = step * stride if coarser else step / stride
                stride *= 1.3
            step = max(expected, finest)
    return inside


def _between(inside: Trial, outside: Trial, value: Callable[[Trial], float], aim: float) -> float:
    """Where the line through two trials, on logarithmic scales, meets `aim`; not too near to either."""
    low, high = log(max(value(inside), 1e-30)), log(max(value(outside), 1e-30))
    share = (log(aim) - low) / (high - low) if high != low else 0.5
    share = min(max(share, 0.08), 0.92)
    return exp(log(inside.step) * (1 - share) + log(outside.step) * share)


def offsets_of(tally: Tally) -> tuple[int, ...]:
    """Offsets that move levels to the means of what they stand for."""
    counts, beyond, _ = tally.rows.T.tolist()
    used = [level for level in range(1, TALLIED) if counts[level]]
    if not used:
        return ()
    explicit = 0
    while explicit < min(used[-1], MOST_EXPLICIT) and counts[explicit + 1] >= _ENOUGH:
        explicit += 1
    return mean_offsets(counts, beyond, used[-1], explicit)


def error_of(tally: Tally, offsets: tuple[int, ...]) -> float:
    """Squared error of the levels with these offsets, in squared steps."""
    moved = [0.0] * TALLIED
    if offsets:
        moved[1:] = [offsets[min(level, len(offsets)) - 1] / FRACTION for level in range(1, TALLIED)]
    rows: list[list[float]] = tally.rows.tolist()
    return sum(
        squares - 2 * by * beyond + count * by**2
        for (count, beyond, squares), by in zip(rows, moved, strict=True)
    )
