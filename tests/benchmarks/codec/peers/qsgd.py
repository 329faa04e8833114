"""QSGD (Alistarh et al., NeurIPS 2017): unbiased stochastic rounding to levels of a tensor's norm.

Its integers are entropy-coded with one static table of their frequencies (order 0), which is smaller than the paper's
Elias code.
"""

from __future__ import annotations

import struct

import constriction
import numpy as np
from measure import Arrays
from numpy.typing import NDArray

from peers.peer import Peer, Shapes, unflat

LEVELS = tuple(round(4 * 2 ** (k / 2)) for k in range(21))
_HEAD = struct.Struct("<HhH")


def _encode(arrays: Arrays, levels: int) -> bytes:
    rng = np.random.default_rng(0)
    norms = np.array([np.linalg.norm(array) for array in arrays.values()], np.float32)
    rounded = []
    for array, norm in zip(arrays.values(), norms, strict=True):
        scaled = np.abs(array) * (levels / norm if norm else 0.0)
        rounded.append((np.sign(array) * np.floor(scaled + rng.random(array.shape))).ravel())
    integers = np.concatenate(rounded).astype(np.int32)
    least = min(int(integers.min()), -1)
    counts = np.bincount(integers - least, minlength=2 - least)
    counts = np.minimum(-(-counts * 65535 // len(integers)), 65535).astype(np.uint16)
    coder = constriction.stream.queue.RangeEncoder()
    coder.encode(integers - np.int32(least), _model(counts))
    head = _HEAD.pack(levels, least, len(counts))
    return head + norms.tobytes() + counts.tobytes() + coder.get_compressed().tobytes()


def _decode(payload: bytes, known: Shapes) -> Arrays:
    sizes = [int(np.prod(shape)) for shape in known.values()]
    levels, least, symbols = _HEAD.unpack_from(payload)
    norms = np.frombuffer(payload, np.float32, len(sizes), _HEAD.size)
    counts = np.frombuffer(payload, np.uint16, symbols, _HEAD.size + norms.nbytes)
    words = payload[_HEAD.size + norms.nbytes + counts.nbytes :]
    coder = constriction.stream.queue.RangeDecoder(np.frombuffer(words, np.uint32))
    integers = coder.decode(_model(counts), sum(sizes)) + least
    return unflat(integers.astype(np.float32) * np.repeat(norms / np.float32(levels), sizes), known)


def _model(counts: NDArray[np.uint16]) -> constriction.stream.model.Categorical:
    return constriction.stream.model.Categorical(counts / counts.sum(), perfect=False)


PEERS = (Peer("QSGD + order-0 entropy coder", _encode, _decode, settings=LEVELS),)
