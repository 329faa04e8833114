"""slimfleet's codec at a rate: the one file that knows its interface."""

from __future__ import annotations

import numpy as np
from uplink import Compressor

from slimfleet.compression.codec import Aim, Encoded, encode_to
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Rounding, Tensors


def at_rate(bits_per_parameter: float, rounding: Rounding = "deadzone") -> Compressor:
    """The least error within this rate, envelope included; unbiased with `rounding` "stochastic"."""

    def compress(update: Tensors, schema: ModelSchema, rng: np.random.Generator) -> Encoded:
        limit = int(bits_per_parameter * schema.elements / 8)
        return encode_to(update, schema, Aim(limit_bytes=limit, rounding=rounding), rng=rng)

    return compress
