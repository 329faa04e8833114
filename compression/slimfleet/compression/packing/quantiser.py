"""Quantiser of packing: tensors to levels at an error each, or at a size together.

As `codec.quantise.native_rate`, but with a step for each tensor, since a model needs the relative precision of every
layer; the steps of all are searched at once, so that tensors which share a section are priced by what they share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.codec.native.bindings import (
    LARGEST_LEVEL,
    Levels,
    NativePreset,
    Part,
    Tally,
    expected_class,
    largest_magnitude,
)
from slimfleet.compression.codec.native.library import load
from slimfleet.compression.codec.quantise.grid import FRACTION, LEAST_UNIT
from slimfleet.compression.codec.quantise.native_rate import (
    SCALAR_PRICE,
    TRELLIS_PRICE,
    error_of,
    offsets_of,
)
from slimfleet.compression.packing.sections import Coded, code_levels, part_of

Values = NDArray[np.float32]
Numbers = NDArray[np.float64]
Made = TypeVar("Made")

TRIES = 10
"""Most trials of one search; it mostly takes four."""
CLOSE = 0.97
"""A search ends when every value is at this share of its bound or more."""
_AIM = 0.985


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


def quantise(tensors: Sequence[NDArray[Any]], units: Sequence[float], preset: NativePreset) -> Quantised:
    """Code tensors as one section, in their order: float32 ones are quantised, int32 ones are levels already.

    `units` are those of the float32 tensors.
    """
    trellis = preset == "small" and load() is not None
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
            states = 8 if trellis and values.ndim > 1 else 1
            parts.append(Part(values.shape, expected_class(values), states, values))
        levels.append(array)
        tallied.append((array, values))
    coded = code_levels(parts, levels, preset, TRELLIS_PRICE if trellis else SCALAR_PRICE)
    return Quantised(tuple(units), coded, tuple(_tally(array, values) for array, values in tallied))


def centred(tally: Tally, unit: float) -> tuple[tuple[int, ...], float]:
    """Offsets of a grid, and the squared error with them."""
    offsets = offsets_of(tally)
    step = float(np.float32(unit) * np.float32(FRACTION))
    return offsets, error_of(tally, offsets) * step**2


def added(tallies: Sequence[Tally]) -> Tally:
    """The tally of several parts of one tensor."""
    total = Tally.empty(max(tally.counts.size for tally in tallies) - 1)
    for tally in tallies:
        for mine, theirs in zip(
            (total.counts, total.sums, total.squares), (tally.counts, tally.sums, tally.squares), strict=True
        ):
            mine[: theirs.size] += theirs
    return total


def _tally(levels: Levels, values: Values) -> Tally:
    top = largest_magnitude(levels)
    if load() is not None:
        tally = Tally.empty(top)
        tally.add(levels, values)
        return tally
    which = np.abs(levels).reshape(-1)
    flat = values.reshape(-1).astype(np.float64)
    along = flat * np.where(levels.reshape(-1) < 0, -1, 1)
    return Tally(
        *(np.bincount(which, weights, top + 1).astype(np.float64) for weights in (None, along, flat**2))
    )


def energy(tensor: Values) -> float:
    """Sum of squares."""
    return float(np.sum(np.square(tensor, dtype=np.float64)))


def finest(tensor: Values) -> float:
    """The step that takes the largest value to the last level."""
    largest = max(float(tensor.max(initial=0)), -float(tensor.min(initial=0)))
    return largest / (LARGEST_LEVEL - 2)


def first_step(rms: float, nmse: float, preset: NativePreset) -> float:
    """A step to begin a search with: that of uniform noise, which prices make coarser."""
    return rms * float(np.sqrt((3 if preset == "small" else 8) * nmse))


def meet(
    trial: Callable[[Numbers], tuple[Numbers, Made]],
    bounds: Numbers,
    first: Numbers,
    least: Numbers,
    slope: float,
    close: float = CLOSE,
) -> tuple[Numbers, Made] | None:
    """Steps at which no value is above its bound and, where the search finds them, all are close to it.

    `trial` gives the values at steps, each of which decides the value beside it, and what was made there. Values follow
    steps as a power, `slope`, at first, and then as the last two trials say. None where even the `least` steps fail.
    """
    steps = np.maximum(first, least)
    best: tuple[Numbers, Made] | None = None
    nearest = -1.0
    slopes = np.full(bounds.shape, slope)
    before: tuple[Numbers, Numbers] | None = None
    for _ in range(TRIES):
        values, made = trial(steps)
        ratio = np.maximum(values, 1e-300) / bounds
        if (ratio <= 1).all() and ratio.min() > nearest:
            best, nearest = (steps, made), float(ratio.min())
        if (ratio <= 1).all() and ((ratio >= close) | (steps <= least)).all():
            break
        if before is not None:
            slopes = _slopes(before, (steps, ratio), slopes)
        before = (steps, ratio)
        move = np.clip(np.log(_AIM / ratio) / slopes, -1.5, 1.5)
        move = np.where((ratio <= 1) & (ratio >= close), 0, move)
        following = np.maximum(steps * np.exp(move), least)
        if (following == steps).all():
            break
        steps = following
    return best


def _slopes(before: tuple[Numbers, Numbers], now: tuple[Numbers, Numbers], slopes: Numbers) -> Numbers:
    """By the last two trials, where their steps lie far enough apart; within a factor of three of those before."""
    run = np.log(now[0] / before[0])
    rise = np.log(now[1] / before[1])
    apart = np.abs(run) > log(1.002)
    seen = np.where(apart, rise / np.where(apart, run, 1), slopes)
    low, high = np.minimum(slopes / 3, slopes * 3), np.maximum(slopes / 3, slopes * 3)
    return np.clip(seen, low, high)
