"""Error feedback: what a lossy codec dropped is added to the next update.

Seide et al. 2014; Karimireddy et al. 2019, algorithm 1. The residual is built on what the decoder makes of
the payload, so that the sum of everything decoded plus the residual equals the sum of everything put in.
Under partial participation it grows stale: it decays with its age and its norm is bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors


def add_residual(
    update: Tensors,
    residual: Mapping[str, NDArray[Any]],
    *,
    age: int = 1,
    decay: float = 1.0,
    max_norm: float | None = None,
) -> Tensors:
    """`update` plus the residual of `age` rounds ago times `decay ** (age - 1)`.

    With `max_norm`, the residual is first scaled down to at most that many times the update's own Euclidean
    norm over the weights in `residual`. Tensors without residual pass untouched.
    """
    factor = decay ** max(age - 1, 0)
    if max_norm is not None:
        limit = max_norm * _norm({name: update[name] for name in residual})
        factor = min(factor, limit / max(_norm(residual), 1e-30))
    return {
        name: (array + residual[name] * np.float32(factor)).astype(array.dtype) if name in residual else array
        for name, array in update.items()
    }


def residual_after(sent: Tensors, decoded: Tensors, schema: ModelSchema) -> Tensors:
    """What the decoder lacks of `sent`, the update with the last residual in it: float32 by weight tensor."""
    return {
        spec.name: sent[spec.name].astype(np.float32) - decoded[spec.name].astype(np.float32)
        for spec in schema.weights
    }


def _norm(tensors: Mapping[str, NDArray[Any]]) -> float:
    # In float16 the square of 256 is infinite already.
    return float(np.sqrt(sum(float(np.sum(np.square(x, dtype=np.float64))) for x in tensors.values())))
