"""Frequency tables of magnitudes, in integers: how they are shared, written in a byte a symbol, and normalised.

Everything a decoder uses is an integer, so both ends build the same table on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.errors import PayloadError

TOTAL_BITS = 16
"""Frequencies of a table sum to 2**16."""
MAX_TABLES = 15
"""A tensor names its table with four bits; 0 says that the tensor is all zeros."""
MAX_CODE = 255
_MANTISSA = 8

Counts = NDArray[np.int64]


def weight_of(codes: NDArray[np.uint8]) -> Counts:
    """What one-byte codes stand for: 3 bits of mantissa, 5 of exponent; 0..15 exactly, then within 1/16."""
    code = codes.astype(np.int64)
    exponent = np.maximum((code >> 3) - 1, 0)
    return np.where(code < _MANTISSA, code, (_MANTISSA + (code & 7)) << exponent)


_WEIGHTS = weight_of(np.arange(MAX_CODE + 1, dtype=np.uint8))
_EDGES = (_WEIGHTS[:-1] + _WEIGHTS[1:] + 1) // 2


def code_of(counts: Counts) -> NDArray[np.uint8]:
    """The nearest code of each count. A count of one or more never becomes zero."""
    return np.searchsorted(_EDGES, counts, side="right").astype(np.uint8)


def normalise(codes: NDArray[np.uint8]) -> Counts:
    """Frequencies of a table: weight * 2**16 // sum of weights, what is left over to the (first) largest.

    Raises PayloadError("entropy") when every weight is zero.
    """
    weights = weight_of(codes)
    total = int(weights.sum())
    if total == 0:
        raise PayloadError("entropy", "a frequency table is empty")
    frequencies = (weights << TOTAL_BITS) // total
    frequencies[int(np.argmax(weights))] += (1 << TOTAL_BITS) - int(frequencies.sum())
    return frequencies


def share_tables(histograms: Sequence[Counts]) -> tuple[list[int], list[Counts]]:
    """Group histograms into few tables: for each histogram the number of its table, and the tables' counts.

    `histograms` are counts (k,) of one length. Greedy, the largest first: a histogram joins the table where
    it costs the fewest bits, or opens one when that is cheaper, its description included.
    """
    groups: list[Counts] = []
    table_of = [0] * len(histograms)
    for which in sorted(range(len(histograms)), key=lambda i: -int(histograms[i].sum())):
        histogram = histograms[which]
        costs = [_bits(group + histogram) - _bits(group) for group in groups]
        best = int(np.argmin(costs)) if costs else 0
        alone = _bits(histogram) + 8 * (2 + int(np.flatnonzero(histogram)[-1]))
        if groups and (costs[best] <= alone or len(groups) == MAX_TABLES):
            groups[best] = groups[best] + histogram
        else:
            best = len(groups)
            groups.append(histogram)
        table_of[which] = best
    return table_of, groups


def _bits(counts: Counts) -> float:
    """Order-0 entropy of a histogram times its size."""
    used = counts[counts > 0].astype(np.float64)
    return float(used.sum() * np.log2(used.sum()) - (used * np.log2(used)).sum())
