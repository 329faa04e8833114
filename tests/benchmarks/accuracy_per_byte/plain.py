"""No compression: float32 in our envelope."""

from __future__ import annotations

import numpy as np

from slimfleet.compression.codec import CodecSpec, Encoded, encode
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors


def float32(update: Tensors, schema: ModelSchema, rng: np.random.Generator) -> Encoded:
    """Four bytes a parameter."""
    return encode(update, schema, CodecSpec(bits=32))
