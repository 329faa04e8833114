"""Several updates in plain float32, encoded at once: the payloads that `encode_to` makes of each for an error of 0."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Payload, Tensors
from slimfleet.compression.wire import Coder, Envelope, Header, Sections, seal

__all__ = ["encode_plain", "is_plain"]


def is_plain(schema: ModelSchema) -> bool:
    """Whether updates of `schema` are float32 weights and nothing else, as `encode_plain` takes them."""
    return len(schema.weights) == len(schema.tensors) and all(
        spec.dtype == "float32" for spec in schema.weights
    )


def encode_plain(
    updates: Tensors, schema: ModelSchema, envelopes: Sequence[Envelope]
) -> list[Payload | None]:
    """The payloads of updates float32 [n, *shape] of a schema that `is_plain`.

    None for one that holds NaN or infinity, which `encode_to` refuses, or nothing but zeros, which it leaves out.
    """
    count = len(envelopes)
    rows = np.concatenate([updates[spec.name].reshape(count, -1) for spec in schema.weights], axis=1)
    least, most = rows.min(axis=1, initial=0.0), rows.max(axis=1, initial=0.0)
    fit = np.isfinite(least) & np.isfinite(most) & ((least < 0) | (most > 0))
    return [
        seal(_header(schema, envelope), row.astype("<f4", copy=False).tobytes()) if fits else None
        for envelope, row, fits in zip(envelopes, rows, fit.tolist(), strict=True)
    ]


def _header(schema: ModelSchema, envelope: Envelope) -> Header:
    return Header(
        schema_digest=schema.digest,
        tensors=len(schema.tensors),
        elements=schema.elements,
        base_version=envelope.base_version,
        plan_id=envelope.plan_id,
        kind=envelope.kind,
        coder=Coder.FLOAT32,
        sections=Sections.WEIGHTS,
        side=envelope.side,
    )
