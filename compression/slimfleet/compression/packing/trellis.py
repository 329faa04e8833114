"""Trellis: levels that follow one another along a trellis, whose two grids together are finer than either
(trellis-coded quantisation, as the update codec has it), chosen at the prices of the coder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from slimfleet.compression.codec.native.bindings import (
    LARGEST_LEVEL,
    Levels,
    Part,
    decode_parts,
    encode_parts,
    largest_magnitude,
)
from slimfleet.compression.codec.native.library import load
from slimfleet.compression.codec.quantise.grid import FRACTION
from slimfleet.compression.packing.quantiser import Values, Way, quantise
from slimfleet.compression.packing.sections import part_of

SECTION_LEVELS = 1 << 20
"""Levels in one section."""
STATES = 8


@dataclass(frozen=True, slots=True)
class Trellised:
    """Tensors as levels."""

    levels: tuple[Levels, ...]
    """int32, in the shapes of the tensors."""
    steps: tuple[np.float32, ...]
    """A tensor is float32(levels) x step."""
    bytes: int
    """That the levels take in a file, about."""


def trellis_levels(tensors: Sequence[Values], steps: Sequence[float], nmse: float) -> Trellised:
    """The levels of matrices, float32 [c, ...] each, at these steps. `nmse`, about what comes of it, chooses how.

    Without the native coder they are rounded to the nearest. Store them as `OnGrid(step, trellis=True)`. Tensors that
    one section cannot hold are quantised in the parts that a file has of them.
    """
    way = Way.to("small", nmse)
    chosen: list[Levels] = [np.zeros(tensor.shape, np.int32) for tensor in tensors]
    units = [float(np.float32(step / FRACTION)) for step in steps]
    size, group = 0, list[int]()
    for at, tensor in enumerate(tensors):
        if tensor.size > SECTION_LEVELS:
            rows = rows_of_a_part(tensor.shape)
            for begin in range(0, len(tensor), rows):
                made = quantise([tensor[begin : begin + rows]], [units[at]], way)
                chosen[at][begin : begin + rows] = made.levels[0]
                size += len(made.coded.data)
        else:
            group.append(at)
        if group and (at == len(tensors) - 1 or sum(tensors[i].size for i in group) >= SECTION_LEVELS):
            made = quantise([tensors[i] for i in group], [units[i] for i in group], way)
            for i, levels in zip(group, made.levels, strict=True):
                chosen[i] = levels
            size, group = size + len(made.coded.data), []
    wholes = tuple(np.float32(unit) * np.float32(FRACTION) for unit in units)
    return Trellised(tuple(chosen), wholes, size)


def rows_of_a_part(shape: tuple[int, ...]) -> int:
    """Rows in each section of a tensor that is cut; one at least."""
    return max(SECTION_LEVELS // prod(shape[1:]), 1)


def states_of(levels: Levels) -> int:
    """States of the trellis that levels of one section follow: 8, or 1 where they follow none."""
    if load() is None or levels.ndim < 2 or largest_magnitude(levels) > LARGEST_LEVEL:
        return 1
    part: Part = part_of(levels, STATES)
    decoded = decode_parts([part], encode_parts([part], [levels], "small"), "small")
    return STATES if np.array_equal(decoded[0], levels) else 1
