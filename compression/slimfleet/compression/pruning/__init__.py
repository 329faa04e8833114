"""Structured pruning: channel groups, windows over them, and maps between a model and its sub-models.

Everything named here needs numpy alone. What touches torch models is imported from its own module:
`discover` finds the groups of a model, `shrink` makes the smaller one.
"""

from slimfleet.compression.pruning.groups import ChannelGroup, Member
from slimfleet.compression.pruning.importance import magnitude_scores
from slimfleet.compression.pruning.index_map import IndexMap, index_map
from slimfleet.compression.pruning.windows import (
    WindowPolicy,
    pack_channels,
    select_channels,
    unpack_channels,
)

__all__ = [
    "ChannelGroup",
    "IndexMap",
    "Member",
    "WindowPolicy",
    "index_map",
    "magnitude_scores",
    "pack_channels",
    "select_channels",
    "unpack_channels",
]
