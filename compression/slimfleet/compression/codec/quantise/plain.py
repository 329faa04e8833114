"""The channel of what is not quantised: batch-norm statistics, counters; and the float32 baseline."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.codec.quantise.grid import Quantised, dequantise
from slimfleet.compression.codec.stage import Stage, stateless
from slimfleet.compression.schema import ModelSchema, TensorSpec
from slimfleet.compression.types import Tensors

_HALF = np.finfo(np.float16)


def carry(array: NDArray[np.generic], spec: TensorSpec) -> NDArray[np.generic]:
    """What the wire carries of a buffer or an integer tensor.

    Integers stay as they are. A buffer goes as float16 where its largest magnitude is a normal float16, so
    that every error is below 2**-11 of that largest; otherwise as float32.
    """
    if spec.kind == "integer":
        return array
    largest = np.abs(array).max(initial=0)
    fits = largest == 0 or _HALF.smallest_normal <= largest <= _HALF.max
    return array.astype(np.float16 if fits else np.float32)


def as_float32(schema: ModelSchema) -> Stage[Tensors, Quantised, None]:
    """No quantisation: every float tensor travels as float32."""

    def encode(tensors: Tensors) -> Quantised:
        plain = {
            spec.name: tensors[spec.name] if spec.kind == "integer" else tensors[spec.name].astype(np.float32)
            for spec in schema.tensors
        }
        return Quantised({}, None, plain)

    return stateless(encode, lambda quantised: dequantise(quantised, schema))
