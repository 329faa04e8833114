"""EDEN (Vargaftik et al., ICML 2022): random rotation, Lloyd-Max quantiser of a normal variable, one scale a block.

Blocks are powers of two, as a fast Walsh-Hadamard transform wants them. The scale makes the estimate unbiased, as the
paper does, or least in squared error ("MMSE").
"""

from __future__ import annotations

import itertools
from functools import cache, partial

import numpy as np
from measure import Arrays
from numpy.typing import NDArray
from scipy.stats import norm

from peers.peer import Peer, Shapes, flat, unflat

BITS = (1, 2, 3, 4)
SEED = 0


@cache
def centroids(bits: int) -> NDArray[np.float32]:
    """Lloyd-Max levels of a standard normal, float32 [2 ** bits], growing."""
    levels = norm.ppf((np.arange(2**bits) + 0.5) / 2**bits)
    for _ in range(2000):
        edges = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]])
        levels = -np.diff(norm.pdf(edges)) / np.diff(norm.cdf(edges))
    return levels.astype(np.float32)


def hadamard(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The orthonormal Walsh-Hadamard transform of 2 ** k values; its own inverse."""
    values = values.copy()
    half = 1
    while half < len(values):
        pairs = values.reshape(-1, 2, half)
        values = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).ravel()
        half *= 2
    return values / np.float32(np.sqrt(len(values)))


def blocks(count: int) -> list[slice]:
    """`count` as falling powers of two."""
    ends = np.cumsum([0] + [1 << k for k in range(count.bit_length() - 1, -1, -1) if count >> k & 1])
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(ends)]


@cache
def _signs(count: int) -> NDArray[np.float32]:
    """Shared randomness: both ends draw it from the seed."""
    return np.random.default_rng(SEED).integers(0, 2, count).astype(np.float32) * 2 - 1


def _encode(arrays: Arrays, bits: int, unbiased: bool) -> bytes:
    values = flat(arrays)
    levels = centroids(bits)
    edges = (levels[1:] + levels[:-1]) / 2
    scales, codes = [], []
    for block in blocks(len(values)):
        rotated = hadamard(values[block] * _signs(len(values))[block])
        length = float(np.linalg.norm(rotated)) or 1.0
        code = np.searchsorted(edges, rotated * np.float32(np.sqrt(len(rotated)) / length))
        quantised = levels[code].astype(np.float64)
        product = float(rotated @ quantised)
        unbiased_scale = length**2 / product if product else 0.0
        scales.append(unbiased_scale if unbiased else product / float(quantised @ quantised))
        codes.append(code.astype(np.uint8))
    planes = np.unpackbits(np.concatenate(codes)[:, None], axis=1)[:, 8 - bits :]
    return bytes([bits]) + np.array(scales, np.float32).tobytes() + np.packbits(planes).tobytes()


def _decode(payload: bytes, known: Shapes) -> Arrays:
    bits, count = payload[0], sum(int(np.prod(shape)) for shape in known.values())
    parts = blocks(count)
    scales = np.frombuffer(payload, np.float32, len(parts), 1)
    packed = np.frombuffer(payload, np.uint8, offset=1 + scales.nbytes)
    planes = np.unpackbits(packed, count=count * bits).reshape(count, bits)
    codes = planes @ (1 << np.arange(bits - 1, -1, -1))
    values = centroids(bits)[codes]
    for block, scale in zip(parts, scales, strict=True):
        values[block] = hadamard(values[block] * scale)
    return unflat(values * _signs(count), known)


PEERS = (
    Peer("EDEN", partial(_encode, unbiased=True), _decode, settings=BITS),
    Peer("EDEN, MMSE scale", partial(_encode, unbiased=False), _decode, settings=BITS),
)
