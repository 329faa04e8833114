"""Golomb code of a sparse ternary vector (Sattler et al. 2019, algorithms 3 and 4)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_GOLDEN = (math.sqrt(5) + 1) / 2


def remainder_bits(share: float) -> int:
    """Bits of the remainder that suit gaps between positions drawn with probability `share` (eq. 17)."""
    return max(0, 1 + math.floor(math.log2(math.log(_GOLDEN - 1) / math.log(1 - share))))


def write(levels: NDArray[np.int32], share: float) -> bytes:
    """Flat levels -1, 0, 1 as bits: each gap's quotient in unary, its remainder, then the sign."""
    bits = remainder_bits(share)
    positions = np.flatnonzero(levels)
    gaps = np.diff(positions, prepend=-1) - 1
    quotients, remainders = gaps >> bits, gaps & ((1 << bits) - 1)
    ends = np.cumsum(quotients + bits + 2)
    stream = np.ones(int(ends[-1]) if ends.size else 0, np.uint8)
    signs = ends - 1
    for bit in range(bits):
        stream[signs - 1 - bit] = (remainders >> bit) & 1
    stream[signs - 1 - bits] = 0
    stream[signs] = levels[positions] < 0
    return np.packbits(stream).tobytes()


def read(data: bytes, count: int, size: int, share: float) -> NDArray[np.int32]:
    """The `size` levels of which `count` are not zero."""
    bits = remainder_bits(share)
    stream = np.unpackbits(np.frombuffer(data, np.uint8)).tolist()
    levels = np.zeros(size, np.int32)
    at, position = 0, -1
    for _ in range(count):
        zero = stream.index(0, at)
        remainder = int("0" + "".join(map(str, stream[zero + 1 : zero + 1 + bits])), 2)
        position += ((zero - at) << bits) + remainder + 1
        levels[position] = -1 if stream[zero + 1 + bits] else 1
        at = zero + bits + 2
    return levels
