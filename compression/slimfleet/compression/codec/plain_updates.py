"""Several updates in plain float32, encoded at once: the payloads that `encode_to` makes of each for an error of 0."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from slimfleet.compression.codec.codec import header_of
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Payload, Tensors
from slimfleet.compression.wire import Coder, Envelope, Sections, seal

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
        seal(
            header_of(schema, envelope, Coder.FLOAT32, Sections.WEIGHTS),
            row.astype("<f4", copy=False).tobytes(),
        )
        if fits
        else None
        for envelope, row, fits in zip(envelopes, rows, fit.tolist(), strict=True)
    ]
