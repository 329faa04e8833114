"""Plain ANS: the portable coder's decoder in Python, for machines that constriction has no wheel for.

About a microsecond a symbol where constriction takes 5 ns; a fleet whose server has the native coder never needs it.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.codec.entropy.frequencies import TOTAL_BITS, Counts

QUANTILE_BITS = 24
_QUANTILES = 1 << QUANTILE_BITS
_LOW = 1 << 32


def starts_of(frequencies: Counts) -> list[int]:
    """The first quantile of each symbol, and 2**24 as the end of the last."""
    room = _QUANTILES - frequencies.size
    before = [0, *accumulate(int(f) for f in frequencies[:-1])]
    return [(c * room >> TOTAL_BITS) + k for k, c in enumerate(before)] + [_QUANTILES]


class PlainAns:
    """A stack of symbols under entropy coding: 64-bit state, 32-bit words, 24-bit quantiles."""

    def __init__(self, words: NDArray[np.uint32]) -> None:
        self._words: list[int] = words.tolist()
        self._state = 0
        while self._words and self._state < _LOW:
            self._state = self._state << 32 | self._words.pop()

    def decode(self, starts: list[int], size: int) -> NDArray[np.int32]:
        """The next `size` symbols under the model of `starts`."""
        symbols = np.empty(size, np.int32)
        state, words = self._state, self._words
        for i in range(size):
            quantile = state & (_QUANTILES - 1)
            k = bisect_right(starts, quantile) - 1
            start = starts[k]
            state = (state >> QUANTILE_BITS) * (starts[k + 1] - start) + quantile - start
            if state < _LOW and words:
                state = state << 32 | words.pop()
            symbols[i] = k
        self._state = state
        return symbols

    def is_empty(self) -> bool:
        """Whether nothing is left."""
        return self._state == 0 and not self._words
