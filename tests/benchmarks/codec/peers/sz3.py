"""SZ3 through pysz: prediction and quantisation within an absolute error bound, all tensors as one series."""

from __future__ import annotations

import numpy as np
import pysz
from measure import Arrays

from peers.peer import Peer, Shapes, flat, unflat


def _encode(arrays: Arrays, bound: float) -> bytes:
    values = flat(arrays)
    config = pysz.szConfig(values.shape)
    config.errorBoundMode = pysz.szErrorBoundMode.ABS
    config.absErrorBound = bound
    compressed, _ = pysz.sz.compress(values, config)
    return bytes(compressed)


def _decode(payload: bytes, known: Shapes) -> Arrays:
    count = sum(int(np.prod(shape)) for shape in known.values())
    values, _ = pysz.sz.decompress(np.frombuffer(payload, np.uint8), np.float32, (count,))
    return unflat(values, known)


PEERS = (Peer("SZ3, absolute bound", _encode, _decode),)
