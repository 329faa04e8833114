"""Rounding of mantissas: fewer bits for floats of which each has to keep its own relative precision."""

from __future__ import annotations

from math import ceil, log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.packing.dtypes import Dtype

FINER = 16
"""Vectors and small tensors get this share of the error allowed: they act on whole channels."""
_MANTISSA = {"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52}
_EXPONENT = {"float16": 5, "bfloat16": 8, "float32": 8, "float64": 11}


def mantissa_bits(nmse: float) -> int:
    """Bits that bring the squared error of values between two powers of two to `nmse / FINER` of their squares.

    Rounding to m bits errs evenly by up to 2 ** -(m + 1) between 1 and 2: by 4 ** -m / 12 in the mean square, where the
    values have one of 2 or more.
    """
    return max(ceil(log2(FINER / (24 * nmse)) / 2), 1)


def rounded(array: NDArray[Any], dtype: Dtype, bits: int) -> NDArray[Any]:
    """The nearest values of `bits` mantissa bits, ties to even; never further than the largest finite number."""
    dropped = _MANTISSA[dtype.name] - bits
    if dropped <= 0 or not array.size:
        return array
    words = array.view(f"<u{dtype.itemsize}")
    one = words.dtype.type(1)
    drop = words.dtype.type(dropped)
    odd = words >> drop & one
    up = (words + ((one << (drop - one)) - one + odd)) >> drop << drop
    down = words >> drop << drop
    mask = words.dtype.type(((1 << _EXPONENT[dtype.name]) - 1) << _MANTISSA[dtype.name])
    kept = np.asarray(np.where(up & mask == mask, down, up), words.dtype)
    return kept.view(array.dtype)
