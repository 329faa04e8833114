"""Codec in one call: tensors to a payload and back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from slimfleet.compression.codec.entropy.pack import pack, unpack
from slimfleet.compression.codec.quantise.grid import LARGEST_VALUE, Quantised, dequantise
from slimfleet.compression.codec.quantise.plain import as_float32, mask_bytes, without_zeros
from slimfleet.compression.codec.quantise.sparsify import sparsify_top_k
from slimfleet.compression.codec.quantise.uniform import quantise_deadzone, quantise_stochastic
from slimfleet.compression.codec.spec import FLOAT32_BITS, CodecSpec, Coding
from slimfleet.compression.errors import PayloadError
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Payload, Tensors
from slimfleet.compression.wire import (
    MAX_SIDE_BYTES,
    OVERHEAD_BYTES,
    Coder,
    Envelope,
    Header,
    Opened,
    PayloadKind,
    Sections,
    check_schema,
    seal,
    unseal,
)

_VECTOR_SHIFT = {PayloadKind.UPDATE: 1, PayloadKind.MODEL: 2}
"""Vectors get a step 2 or 4 times finer; in an update that costs 0.2 % of the bytes."""


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


def encode(
    tensors: Tensors,
    schema: ModelSchema,
    spec: CodecSpec,
    *,
    envelope: Envelope = Envelope(),
    coding: Coding = Coding(),
    rng: np.random.Generator | None = None,
) -> Encoded:
    """Code an update, or a whole model, into a payload; `rng` is needed for stochastic rounding.

    Raises PayloadError: schema when the tensors are not those of `schema`, nonfinite for NaN or infinity. A change of a
    model is encoded by `encode_change`.
    """
    checked = schema.check(tensors)
    check_values(checked, schema, envelope.kind, quantised=spec.bits != FLOAT32_BITS)
    return sealed(quantise(checked, schema, spec, envelope.kind, rng), schema, envelope, coding)


def quantise(
    tensors: Tensors,
    schema: ModelSchema,
    spec: CodecSpec,
    kind: PayloadKind = PayloadKind.UPDATE,
    rng: np.random.Generator | None = None,
) -> Quantised:
    """Sparsify, then quantise: an update with one step for all weights, a model with one for each tensor."""
    if spec.bits == FLOAT32_BITS:
        return as_float32(tensors, schema)
    shift, one_step = _VECTOR_SHIFT[kind], kind is PayloadKind.UPDATE
    if spec.rounding == "stochastic":
        if rng is None:
            raise ValueError("stochastic rounding needs a random generator")
        return quantise_stochastic(
            tensors, schema, spec.bits, rng, sparsity=spec.sparsity, one_step=one_step, vector_shift=shift
        )
    sparse = spec.sparsity > 0
    kept = sparsify_top_k(tensors, schema, spec.sparsity, shift) if sparse else tensors
    return quantise_deadzone(kept, schema, spec.bits, sparse=sparse, one_step=one_step, vector_shift=shift)


def sealed(
    quantised: Quantised,
    schema: ModelSchema,
    envelope: Envelope = Envelope(),
    coding: Coding = Coding(),
) -> Encoded:
    """Quantised tensors as a payload."""
    lean, update = quantised, envelope.kind is PayloadKind.UPDATE
    if update:
        lean = replace(quantised, plain=without_zeros(quantised.plain, schema))
    # Devices read models, and may be without constriction.
    body = pack(lean, schema, coding, tables=update)
    header = header_of(schema, envelope, body.coder, body.sections)
    return Encoded(seal(header, body.data), dequantise(quantised, schema))


def header_of(schema: ModelSchema, envelope: Envelope, coder: Coder, sections: Sections) -> Header:
    """The header of a payload of `schema`."""
    return Header(
        schema_digest=schema.digest,
        tensors=len(schema.tensors),
        elements=schema.elements,
        base_version=envelope.base_version,
        plan_id=envelope.plan_id,
        kind=envelope.kind,
        coder=coder,
        sections=sections,
        side=envelope.side,
    )


def check_values(tensors: Tensors, schema: ModelSchema, kind: PayloadKind, *, quantised: bool) -> None:
    """Raise PayloadError("nonfinite") for NaN, infinity, or more than the wire, or the quantiser, can carry.

    What a model does not train may hold NaN and infinity.
    """
    for tensor in schema.tensors:
        array = tensors[tensor.name]
        if tensor.kind == "integer":
            continue
        if kind is not PayloadKind.UPDATE and tensor.kind != "weight":
            array = array[np.isfinite(array)]
        if not array.size:
            continue
        on_a_grid = quantised and tensor.kind == "weight"
        limit = LARGEST_VALUE if on_a_grid else float(np.finfo(np.float32).max)
        # Written so that NaN fails too.
        if not (-limit <= float(array.min()) and float(array.max()) <= limit):
            raise PayloadError(
                "nonfinite", f"tensor {tensor.name!r} holds NaN, infinity or more than {limit:.3g}"
            )


def decode(payload: bytes | Opened, schema: ModelSchema, reference: Tensors | None = None) -> Decoded:
    """Read a payload that was made for `schema`, with the reference that it was made with, if any.

    Raises PayloadError and nothing else, whatever the bytes are; memory stays below four times the schema's
    size.
    """
    header, quantised = read_quantised(payload, schema, reference)
    if header.kind is PayloadKind.CHANGE:
        raise PayloadError(
            "header", "a change can only be decoded with the model that was changed: use decode_change"
        )
    if header.kind is PayloadKind.UPDATE:
        _check_finite(quantised.plain)
    elif header.sections & Sections.PARTIAL:
        raise PayloadError("header", "a whole model leaves nothing out")
    return Decoded(header, dequantise(quantised, schema))


def _check_finite(plain: Tensors) -> None:
    for name, array in plain.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise PayloadError("nonfinite", f"tensor {name!r} changes by NaN or infinity")


def read_quantised(
    payload: bytes | Opened, schema: ModelSchema, reference: Tensors | None = None
) -> tuple[Header, Quantised]:
    """The header and the levels of a payload that was made for `schema`. Raises as `decode` does."""
    limit = largest_payload(schema)
    size = payload.size if isinstance(payload, Opened) else len(payload)
    if size > limit:
        raise PayloadError("oversized", f"payload of {size} bytes, this schema needs at most {limit}")
    header, body = unseal(payload)
    check_schema(header, schema)
    return header, unpack(body, header.coder, header.sections, schema, reference)


def largest_payload(schema: ModelSchema) -> int:
    """A bound on the bytes of any payload of `schema`.

    Plain tensors take at most 8 bytes an element; a quantised one at most 24 + 1 bits, its tables 15 times
    1027 bytes.
    """
    fields = 5 * len(schema.tensors) + mask_bytes(schema) + 16 * 1027
    return OVERHEAD_BYTES + MAX_SIDE_BYTES + 8 * schema.elements + fields
