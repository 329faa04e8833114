"""How vectors are written: schemas, tensors and numbers as JSON that every language can read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimfleet.client.anatomy import members_record
from slimfleet.compression.pruning.groups import ChannelGroup
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors

Files = dict[str, bytes]
"""Path below `vectors/` -> content."""

Document = dict[str, Any]


def groups_json(groups: Sequence[ChannelGroup]) -> list[Document]:
    """As `slimfleet-device inspect --json` prints them."""
    return [
        {"name": g.name, "size": g.size, "least": g.min_channels, "members": members_record(g)}
        for g in groups
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
