"""Plain tensors, not quantised: batch-norm statistics and counters, and all tensors in the float32 baseline."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.codec.quantise.grid import Quantised
from slimfleet.compression.schema import ModelSchema, TensorSpec
from slimfleet.compression.types import Tensors

_HALF = np.finfo(np.float16)


def as_float32(tensors: Tensors, schema: ModelSchema) -> Quantised:
    """No quantisation: every float tensor travels as float32."""
    plain = {
        spec.name: tensors[spec.name] if spec.kind == "integer" else tensors[spec.name].astype(np.float32)
        for spec in schema.tensors
    }
    return Quantised({}, None, plain)


def carried(tensors: Tensors, schema: ModelSchema) -> Tensors:
    """Buffers and integers as the wire carries them, in schema order.

    Integers stay as they are. A buffer goes as float16 where its largest magnitude is a normal float16, so
    that every error is below 2**-11 of that largest; otherwise as float32.
    """
    return {spec.name: _carried(tensors[spec.name], spec) for spec in schema.of_kind("buffer", "integer")}


def _carried(array: NDArray[np.generic], spec: TensorSpec) -> NDArray[np.generic]:
    if spec.kind == "integer":
        return array
    largest = np.abs(array).max(initial=0)
    fits = largest == 0 or _HALF.smallest_normal <= largest <= _HALF.max
    return array.astype(np.float16 if fits else np.float32)
