"""slimfleet's codec at a rate or at an error: the one file that knows how it is asked.

Until the codec can be asked for a rate itself, this looks for the spec that meets it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from uplink import Compressor

from slimfleet.compression.codec import CodecSpec, Encoded, encode
from slimfleet.compression.codec.search import nmse
from slimfleet.compression.errors import BadInput
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors

try:
    from slimfleet.compression.codec.rate import encode_to
except ImportError:
    encode_to = None

_BITS, _TRIES, _FEWEST, _MOST = 8, 12, 1e-4, 0.98


def at_rate(bits_per_parameter: float) -> Compressor:
    """The least error within so many bits a parameter, envelope included."""

    def compress(update: Tensors, schema: ModelSchema, rng: np.random.Generator) -> Encoded:
        limit = int(bits_per_parameter * schema.elements / 8)
        if encode_to is not None:
            return encode_to(update, schema, nmse=None, limit_bytes=limit)
        return _search(update, schema, lambda encoded: len(encoded.payload) <= limit, _FEWEST, _MOST)

    return compress


def at_error(target: float) -> Compressor:
    """The fewest bytes at a squared error of at most `target` times the squared norm of what is sent."""

    def compress(update: Tensors, schema: ModelSchema, rng: np.random.Generator) -> Encoded:
        if encode_to is not None:
            return encode_to(update, schema, nmse=target, limit_bytes=None)
        return _search(
            update, schema, lambda encoded: nmse(update, encoded.decoded) <= target, _MOST, _FEWEST
        )

    return compress


def _search(
    update: Tensors, schema: ModelSchema, works: Callable[[Encoded], bool], safe: float, wanted: float
) -> Encoded:
    """The share of kept values nearest to `wanted` that works, by bisection of its logarithm from `safe` on."""
    near, far = math.log(safe), math.log(wanted)
    best = encode(update, schema, CodecSpec(bits=_BITS, sparsity=1 - safe))
    if not works(best):
        raise BadInput("not even the safest spec meets the rate or the error that is asked for")
    for _ in range(_TRIES):
        middle = (near + far) / 2
        tried = encode(update, schema, CodecSpec(bits=_BITS, sparsity=1 - math.exp(middle)))
        if works(tried):
            near, best = middle, tried
        else:
            far = middle
    return best
