"""Rate control: an update in as few bytes as an error allows, or with as little error as bytes allow."""

from __future__ import annotations

import numpy as np

from slimfleet.compression.codec import error
from slimfleet.compression.codec.codec import Encoded, check_values, quantise, sealed
from slimfleet.compression.codec.native.library import load
from slimfleet.compression.codec.quantise import native_rate, portable_rate
from slimfleet.compression.codec.quantise.grid import Quantised
from slimfleet.compression.codec.spec import PLAIN, Aim, CodecSpec, Coding
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors
from slimfleet.compression.wire import Envelope


def encode_to(
    tensors: Tensors,
    schema: ModelSchema,
    aim: Aim,
    *,
    envelope: Envelope = Envelope(),
    coding: Coding = Coding(),
    rng: np.random.Generator | None = None,
) -> Encoded:
    """The smallest payload found of an update that keeps the error of `aim`, or the least error found in its bytes.

    The error is that of the trained tensors; buffers and integers travel as in `encode`. With stochastic rounding, for
    which `rng` is needed, a size that binds looks at the draw, so that only then a trace of bias is left.

    Raises ValueError for stochastic rounding without `rng`, BudgetExceeded("uplink_bytes") when nothing fits the size,
    and PayloadError as `encode` does.
    """
    if aim.rounding == "stochastic" and rng is None:
        raise ValueError("stochastic rounding needs a random generator")
    tensors = schema.check(tensors)
    check_values(tensors, schema, envelope.kind, quantised=aim.nmse != 0)
    seed = None if rng is None else int(rng.integers(2**63))  # one draw, however often it is coded

    def seal_up(quantised: Quantised) -> Encoded:
        return sealed(quantised, schema, envelope, coding)

    def code(spec: CodecSpec) -> Encoded:
        drawn = None if seed is None else np.random.default_rng(seed)
        return seal_up(quantise(tensors, schema, spec, rng=drawn))

    deadzone = aim.rounding == "deadzone"
    priced = deadzone and coding.preset != "portable" and load() is not None
    if priced and any(tensors[spec.name].any() for spec in schema.weights):
        quantiser = native_rate.quantiser_for(tensors, schema, aim, coding)
        encoded = native_rate.choose(quantiser, aim, seal_up, lambda: code(PLAIN))
    else:
        encoded = portable_rate.choose(tensors, schema, aim, code)
    if aim.nmse and deadzone and _rounded_away(encoded, tensors, schema, aim.nmse):
        plain = code(PLAIN)
        if aim.fits(plain.payload):
            return plain
    return encoded


def _rounded_away(encoded: Encoded, tensors: Tensors, schema: ModelSchema, bound: float) -> bool:
    """Whether float16 weights, onto which values of the grid are rounded at the end, miss a very small error."""
    if all(spec.dtype != "float16" for spec in schema.weights):
        return False
    return error.nmse({spec.name: tensors[spec.name] for spec in schema.weights}, encoded.decoded) > bound
