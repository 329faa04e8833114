"""Trials of the native coder: the same weights quantised and coded at one step after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.codec.native.bindings import (
    PRESETS,
    Levels,
    NativePreset,
    Tensor,
    address,
    as_matrix,
    checked_guess,
    written,
)
from slimfleet.compression.codec.native.library import require

TALLIED = 10
"""Rows of a tally: SLIMCODEC_TALLIED of slimcodec.h."""
_SHIFT = 20
"""Bits of a float32 that `spread` does not tell apart."""
SPREAD_EDGES = (np.arange(1 << (31 - _SHIFT), dtype=np.uint32) << _SHIFT).view(np.float32)
"""The least magnitude of each place of a spread; 8 places are an octave."""


class Tally:
    """How far weights lie from their levels.

    `rows` [TALLIED, 3], for the magnitudes 0, 1 .. and all from TALLIED - 1 on: how many levels there are, and the sums
    of r and of r squared, where r is how far a weight lies beyond its level, away from zero, in steps.
    """

    def __init__(self, rows: NDArray[np.float64] | None = None) -> None:
        self.rows = np.zeros((TALLIED, 3)) if rows is None else rows

    def add(self, levels: Levels, values: NDArray[np.float32]) -> None:
        """Count one tensor, its values in steps."""
        require().slimcodec_tally(
            address(levels, np.int32, levels.shape),
            address(values, np.float32, levels.shape),
            1.0,
            levels.size,
            self.rows.ctypes.data,
        )


class Trials:
    """Weights that are quantised and coded at one step after another.

    Matrices are quantised at the price of `price` squared steps a bit, vectors to the nearest. Raises TypeError where
    `arrays` are not float32.
    """

    def __init__(
        self, arrays: Sequence[NDArray[np.float32]], preset: NativePreset, *, trellis: bool, price: float
    ) -> None:
        self._shapes = [array.shape for array in arrays]
        self._ends = np.cumsum([array.size for array in arrays]).tolist()
        self._preset, self._price, self._library = preset, price, require()
        rows = [np.empty(0, np.float32), *(array.reshape(-1) for array in arrays)]
        self._weights = np.concatenate(rows, dtype=np.float32, casting="no")
        self._values = np.empty_like(self._weights)
        self._tensors = (Tensor * len(arrays))()
        at = self._values.ctypes.data
        for tensor, array in zip(self._tensors, arrays, strict=True):
            tensor.rows, tensor.cols, tensor.kernel = as_matrix(array.shape)
            matrix = array.ndim > 1
            tensor.states = 8 if trellis and matrix else 1
            tensor.values = at if matrix else None
            at += array.nbytes

    @property
    def weights(self) -> NDArray[np.float32]:
        """All of them in one row."""
        return self._weights

    def at(self, step: np.float32, fine_step: np.float32, guess: Sequence[Levels] | None = None) -> AtStep:
        """Quantise and code matrices with `step` and vectors with `fine_step`."""
        levels = np.empty(self._weights.size, np.int32)
        at = levels.ctypes.data
        for place, (tensor, shape) in enumerate(zip(self._tensors, self._shapes, strict=True)):
            tensor.levels = at
            at += levels.itemsize * prod(shape)
            known = None if guess is None else checked_guess(guess[place])
            tensor.guess = None if known is None else address(known, np.int32, shape)
        tallies = np.empty((2, TALLIED, 3))

        def write(room: int, capacity: int) -> int:
            return int(
                self._library.slimcodec_quantise(
                    self._tensors,
                    len(self._shapes),
                    PRESETS[self._preset],
                    self._price,
                    self._weights.ctypes.data,
                    step,
                    fine_step,
                    room,
                    capacity,
                    tallies.ctypes.data,
                )
            )

        data = written(write, levels.size)
        pieces = zip([0, *self._ends], self._ends, self._shapes, strict=False)
        return AtStep(
            [levels[start:end].reshape(shape) for start, end, shape in pieces],
            tuple(tensor.start for tensor in self._tensors),
            data,
            Tally(tallies[0]),
            Tally(tallies[1]),
        )


@dataclass(frozen=True, slots=True)
class AtStep:
    """Weights at one step."""

    levels: list[Levels]
    starts: tuple[int, ...]
    """Start class of each."""
    data: bytes
    matrices: Tally
    vectors: Tally
    """Those of fewer than two dimensions, in fine steps."""


def spread(values: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How many values there are, and the sums of their squares, by exponent and first three bits of the mantissa.

    Float64 [2048] each, in the places of SPREAD_EDGES.
    """
    counts, squares = np.zeros(SPREAD_EDGES.size), np.zeros(SPREAD_EDGES.size)
    require().slimcodec_spread(
        address(values, np.float32, values.shape), values.size, counts.ctypes.data, squares.ctypes.data
    )
    return counts, squares
