"""How vectors are written: schemas, tensors and numbers as JSON that every language can read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.pruning.groups import ChannelGroup
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors

Files = dict[str, bytes]
"""Path below `vectors/` -> content."""

Document = dict[str, Any]


def schema_json(schema: ModelSchema) -> list[Document]:
    return [
        {"name": t.name, "shape": list(t.shape), "dtype": t.dtype, "kind": t.kind} for t in schema.tensors
    ]


def groups_json(groups: Sequence[ChannelGroup]) -> list[Document]:
    return [
        {
            "name": group.name,
            "size": group.size,
            "min_channels": group.min_channels,
            "members": [
                {"tensor": m.tensor, "dim": m.dim, "positions": m.positions.tolist()} for m in group.members
            ],
        }
        for group in groups
    ]


def float_bytes(tensors: Tensors, schema: ModelSchema) -> bytes:
    """All float tensors in schema order, as little-endian float32."""
    floats = [tensors[t.name].astype("<f4").ravel() for t in schema.tensors if t.kind != "integer"]
    return np.concatenate([*floats, np.zeros(0, "<f4")]).astype("<f4").tobytes()


def integers_json(tensors: Tensors, schema: ModelSchema) -> dict[str, list[str]]:
    """Integer tensors as text: not every JSON reader has 64 bits. uint64 from 2**63 on as its two's complement."""
    return {
        t.name: [str(v) for v in tensors[t.name].astype(np.int64).ravel().tolist()]
        for t in schema.tensors
        if t.kind == "integer"
    }


def bits(values: NDArray[np.float32]) -> list[int]:
    """float32 values as the numbers that their bits are."""
    return np.ascontiguousarray(values, "<f4").view("<u4").ravel().tolist()
