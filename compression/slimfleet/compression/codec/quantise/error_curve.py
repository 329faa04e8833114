"""Error curve: what error each step will give, estimated from how the magnitudes are spread, before anything is coded.

A magnitude below a threshold becomes zero and errs by itself, one above it errs by that of uniform noise. The
threshold is where the price of a level that is not zero equals the gain, at the entropy of how many are zero. The error
of a trial lies within some 10 % of the estimate, and its slope within 2 %: a search that moves along the curve mostly
takes two trials.
"""

from __future__ import annotations

from math import exp, log

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.codec.native.trials import SPREAD_EDGES, spread

_OCTAVES = 24
"""Below the largest magnitude, what is smaller is taken for zero."""
_PLACES = 8 * _OCTAVES
_FINEST, _COARSEST, _POINTS = log(2) * 12, 1.5, 72
"""Steps of the curve: from 2**-12 of the largest magnitude to 4.5 times it."""
_SIGN = 1.0
"""Bits of a level's sign."""
_NEAREST, _FARTHEST = 0.5, 3.0
"""Bounds of the threshold, in steps."""
_TRELLIS_GAIN = 1.15, 1.0
"""Logarithm of how much more a trellis errs than uniform noise at its step: three times, for its points are two steps
apart, and less the fewer are not zero. Fitted to updates of five models."""


class ErrorCurve:
    """Of float32 `values` that are quantised at `price` squared steps a bit; errors are relative to `energy`."""

    def __init__(self, values: NDArray[np.float32], energy: float, *, price: float, trellis: bool) -> None:
        counts, squares = spread(values)
        edges, below, energies = _cumulated(counts, squares)
        steps = np.linspace(edges[-1] - _FINEST, edges[-1] + _COARSEST, _POINTS)
        threshold = np.full(_POINTS, 0.6)
        for _ in range(2):
            share = (np.interp(steps + np.log(threshold), edges, below) + 0.5) / (below[-1] + 1)
            zero = np.clip(share, 1e-3, 1 - 1e-9)
            bits = np.log2(zero / (1 - zero)) + _SIGN
            threshold = np.clip(0.5 + price / 2 * bits, _NEAREST, _FARTHEST)
        cut = steps + np.log(threshold)
        noise = (below[-1] - np.interp(cut, edges, below)) * np.exp(2 * steps) / 12
        if trellis:
            dense, sparser = _TRELLIS_GAIN
            noise *= np.exp(np.clip(dense - sparser * (threshold - _NEAREST), -0.1, dense))
        errors = (np.interp(cut, edges, energies) + noise) / energy
        # Rising, so that it can be read both ways.
        rising = np.maximum.accumulate(errors) * (1 + 1e-6 * np.arange(_POINTS))
        self._steps, self._errors = steps, np.log(np.maximum(rising, 1e-30))

    def step_for(self, nmse: float) -> float:
        """The step that is expected to give an error."""
        return exp(np.interp(log(nmse), self._errors, self._steps))

    def moved(self, step: float, nmse: float, aim: float) -> float:
        """Where the error is expected to be `aim`, given that `step` has one of `nmse`."""
        here = float(np.interp(log(step), self._steps, self._errors))
        return exp(np.interp(log(aim) - log(max(nmse, 1e-30)) + here, self._errors, self._steps))


def _cumulated(
    counts: NDArray[np.float64], squares: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Logarithms of magnitudes, how many values lie below each, and the sums of their squares."""
    top = max(int(np.flatnonzero(counts)[-1]) + 1, _PLACES + 1)
    low = top - _PLACES
    edges = np.log(SPREAD_EDGES[low : top + 1].astype(np.float64))
    below = counts[:low].sum() + np.concatenate([[0.0], np.cumsum(counts[low:top])])
    energies = squares[:low].sum() + np.concatenate([[0.0], np.cumsum(squares[low:top])])
    return edges, below, energies
