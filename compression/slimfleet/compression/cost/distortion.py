"""Bits and error of an update at given bits and sparsity, before there is one.

The codec itself is run once per (bits, sparsity) on an ideal source: lognormal magnitudes with sigma 1
(kurtosis e^4 = 55; a Laplacian has 6) and random signs. A threshold drops the share
Phi(Phi^-1(sparsity) - 2) of such a source's energy, which is within 0.06 of real updates of a CNN and of a
ResNet from half to 98% sparsity, where a Laplacian is off by up to 0.26.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.codec import CodecSpec, encode
from slimfleet.compression.schema import ModelSchema

FLOAT32_BITS = 32
_VALUES = 1 << 16


def bits_per_value(bits: int, sparsity: float) -> float:
    """Bits of payload per value of the update."""
    return _coded(bits, sparsity)[0]


def expected_nmse(bits: int, sparsity: float) -> float:
    """Squared error of the compressed update over the squared norm of the update, 0..1."""
    return _coded(bits, sparsity)[1]


@lru_cache(maxsize=1024)
def _coded(bits: int, sparsity: float) -> tuple[float, float]:
    if bits == FLOAT32_BITS:
        return float(FLOAT32_BITS), 0.0
    values = _source()
    update: dict[str, NDArray[Any]] = {"values": values}
    encoded = encode(update, ModelSchema.of(update, ["values"]), CodecSpec(bits=bits, sparsity=sparsity))
    error = values - encoded.decoded["values"]
    return 8 * len(encoded.payload) / values.size, float(np.sum(error**2) / np.sum(values**2))


@lru_cache(maxsize=1)
def _source() -> NDArray[np.float32]:
    """(256, 256): a matrix, as most weights are."""
    rng = np.random.default_rng(0)
    magnitudes = rng.lognormal(size=_VALUES)
    return np.where(rng.random(_VALUES) < 0.5, -magnitudes, magnitudes).astype(np.float32).reshape(256, -1)
