"""The codec as one call: tensors to a payload and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from slimfleet.compression.codec.entropy.pack import pack, unpack
from slimfleet.compression.codec.quantise.grid import Quantised, dequantise
from slimfleet.compression.codec.quantise.plain import as_float32
from slimfleet.compression.codec.quantise.sparsify import sparsify_top_k
from slimfleet.compression.codec.quantise.uniform import quantise_deadzone, quantise_stochastic
from slimfleet.compression.codec.stage import Stage, chain
from slimfleet.compression.errors import PayloadError
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Payload, Preset, Rounding, Tensors
from slimfleet.compression.wire import (
    MAX_SIDE_BYTES,
    OVERHEAD_BYTES,
    Header,
    PayloadKind,
    check_schema,
    seal,
    unseal,
)

FLOAT32_BITS = 32
_LARGEST_QUANTISED = 2.0**100
"""Beyond any sane weight, and far enough from the end of float32 for every product of the quantiser."""
_VECTOR_SHIFT = {PayloadKind.UPDATE: 1, PayloadKind.MODEL: 2}
"""Vectors get a step 2 or 4 times finer; in an update that costs 0.2 % of the bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecSpec:
    """How lossy a payload is."""

    bits: int
    """1..8: `2 ** (bits - 1)` levels per sign; 32: plain float32."""
    sparsity: float = 0.0
    """Share of the weights, over all tensors together, that is sent as zero; 0 <= sparsity < 1."""
    rounding: Rounding = "deadzone"
    """Least error for the bytes, or unbiased."""

    def __post_init__(self) -> None:
        if self.bits not in (*range(1, 9), FLOAT32_BITS):
            raise ValueError(f"bits is {self.bits}, it can be 1..8 or {FLOAT32_BITS}")
        if not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity is {self.sparsity}, it must be at least 0 and below 1")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A payload, and exactly what its decoder will have."""

    payload: Payload
    decoded: Tensors


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a payload held, in the schema's order and dtypes."""

    header: Header
    tensors: Tensors


def stages(
    schema: ModelSchema,
    spec: CodecSpec,
    *,
    kind: PayloadKind = PayloadKind.UPDATE,
    rng: np.random.Generator | None = None,
) -> Stage[Tensors, Quantised, tuple[Any, ...]]:
    """The chain that `spec` asks for: sparsify, then quantise. `rng` is needed for stochastic rounding.

    An update gets one step for all weights, a model one for each tensor.
    """
    if spec.bits == FLOAT32_BITS:
        return chain(as_float32(schema))
    shift, one_step = _VECTOR_SHIFT[kind], kind is PayloadKind.UPDATE
    if spec.rounding == "stochastic":
        if rng is None:
            raise ValueError("stochastic rounding needs a random generator")
        return chain(
            quantise_stochastic(
                schema, spec.bits, rng, sparsity=spec.sparsity, one_step=one_step, vector_shift=shift
            )
        )
    sparse = spec.sparsity > 0
    quantise = quantise_deadzone(schema, spec.bits, sparse=sparse, one_step=one_step, vector_shift=shift)
    return chain(sparsify_top_k(schema, spec.sparsity, shift), quantise) if sparse else chain(quantise)


def encode(
    tensors: Tensors,
    schema: ModelSchema,
    spec: CodecSpec,
    *,
    kind: PayloadKind = PayloadKind.UPDATE,
    base_version: int = 0,
    plan_id: int = 0,
    side: bytes = b"",
    rng: np.random.Generator | None = None,
    preset: Preset = "small",
    reference: Tensors | None = None,
) -> Encoded:
    """Code an update, or a whole model, into a payload.

    `reference`: tensors that resemble these and that the decoder has too, such as the last global update.

    Raises PayloadError: schema when the tensors are not those of `schema`, nonfinite for NaN or infinity. A change of a
    model is encoded by `encode_change`.
    """
    checked = schema.check(tensors)
    check_values(checked, schema, quantised=spec.bits != FLOAT32_BITS)
    stage = stages(schema, spec, kind=kind, rng=rng)
    quantised, _ = stage.encode(checked, stage.init(schema))
    return sealed(
        quantised,
        schema,
        kind=kind,
        base_version=base_version,
        plan_id=plan_id,
        side=side,
        preset=preset,
        reference=reference,
    )


def sealed(
    quantised: Quantised,
    schema: ModelSchema,
    *,
    kind: PayloadKind = PayloadKind.UPDATE,
    base_version: int = 0,
    plan_id: int = 0,
    side: bytes = b"",
    preset: Preset = "small",
    reference: Tensors | None = None,
) -> Encoded:
    """A quantised update as a payload."""
    # Devices read models, and may be without constriction.
    body = pack(quantised, schema, preset, reference, tables=kind is PayloadKind.UPDATE)
    header = Header(
        schema_digest=schema.digest,
        tensors=len(schema.tensors),
        elements=schema.elements,
        base_version=base_version,
        plan_id=plan_id,
        kind=kind,
        coder=body.coder,
        sections=body.sections,
        side=side,
    )
    return Encoded(seal(header, body.data), dequantise(quantised, schema))


def check_values(tensors: Tensors, schema: ModelSchema, *, quantised: bool) -> None:
    """Raise PayloadError("nonfinite") for NaN, infinity, or more than the wire, or the quantiser, can carry."""
    for tensor in schema.tensors:
        array = tensors[tensor.name]
        if tensor.kind == "integer" or not array.size:
            continue
        on_a_grid = quantised and tensor.kind == "weight"
        limit = _LARGEST_QUANTISED if on_a_grid else float(np.finfo(np.float32).max)
        # Written so that NaN fails too.
        if not (-limit <= float(array.min()) and float(array.max()) <= limit):
            raise PayloadError(
                "nonfinite", f"tensor {tensor.name!r} holds NaN, infinity or more than {limit:.3g}"
            )


def decode(payload: bytes, schema: ModelSchema, reference: Tensors | None = None) -> Decoded:
    """Read a payload that was made for `schema`, with the reference that it was made with, if any.

    Raises PayloadError and nothing else, whatever the bytes are; memory stays below four times the schema's
    size.
    """
    header, quantised = read_quantised(payload, schema, reference)
    if header.kind is PayloadKind.CHANGE:
        raise PayloadError("header", "a change means something only to who holds the model that was changed")
    return Decoded(header, dequantise(quantised, schema))


def read_quantised(
    payload: bytes, schema: ModelSchema, reference: Tensors | None = None
) -> tuple[Header, Quantised]:
    """The header and the levels of a payload that was made for `schema`. Raises as `decode` does."""
    limit = largest_payload(schema)
    if len(payload) > limit:
        raise PayloadError("oversized", f"payload of {len(payload)} bytes, this schema needs at most {limit}")
    header, body = unseal(payload)
    check_schema(header, schema)
    return header, unpack(body, header.coder, header.sections, schema, reference)


def largest_payload(schema: ModelSchema) -> int:
    """A bound on the bytes of any payload of `schema`.

    Plain tensors take at most 8 bytes an element; a quantised one at most 24 + 1 bits, its tables 15 times
    1027 bytes.
    """
    return OVERHEAD_BYTES + MAX_SIDE_BYTES + 8 * schema.elements + 5 * len(schema.tensors) + 16 * 1027
