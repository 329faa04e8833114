"""A small model with every kind of tensor, whose four rows may be left out: what aggregators are tried on."""

from __future__ import annotations

import numpy as np

from slimfleet.compression import ModelSchema
from slimfleet.compression.pruning import ChannelGroup, IndexMap, Member, index_map

TENSORS = {
    "weight": np.zeros((4, 3), np.float32),
    "running": np.zeros(4, np.float32),
    "count": np.zeros((), np.int64),
    "byte": np.zeros(4, np.uint8),
    "flag": np.zeros(4, np.bool_),
}
SCHEMA = ModelSchema.of(TENSORS, ["weight"])
ROWS = np.arange(4).reshape(4, 1)
GROUP = ChannelGroup(
    name="rows", size=4, members=tuple(Member(n, 0, ROWS) for n in ("weight", "running", "byte", "flag"))
)


def map_of(*rows: int) -> IndexMap:
    return index_map(SCHEMA, [GROUP], {"rows": np.array(rows)})
