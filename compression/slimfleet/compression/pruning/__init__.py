"""Pruning: channel groups, windows over them, maps between a model and its sub-models; and masks of single weights.

Everything exported here needs numpy alone. Functions on torch models are imported from their own modules:
`discover` finds the groups of a model, `shrink` makes the smaller one.
"""

from slimfleet.compression.pruning.groups import ChannelGroup, Discovery, LeftWhole, Member
from slimfleet.compression.pruning.index_map import IndexMap, index_map, within
from slimfleet.compression.pruning.mask import Masks, density, magnitude_masks, masked
from slimfleet.compression.pruning.windows import (
    WindowPolicy,
    magnitude_scores,
    pack_channels,
    select_channels,
    unpack_channels,
)

__all__ = [
    "ChannelGroup",
    "Discovery",
    "IndexMap",
    "LeftWhole",
    "Masks",
    "Member",
    "WindowPolicy",
    "density",
    "index_map",
    "magnitude_masks",
    "magnitude_scores",
    "masked",
    "pack_channels",
    "select_channels",
    "unpack_channels",
    "within",
]
