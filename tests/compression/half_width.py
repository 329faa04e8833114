"""A model at half width, and the full one with the channels that are gone at zero: both must compute the same."""

from collections.abc import Sequence

from torch import nn

from slimfleet.compression.pruning import ChannelGroup, IndexMap, index_map, select_channels
from slimfleet.compression.pruning.shrink import shrink_model
from slimfleet.compression.tensors import load_tensors, schema_of, tensors_of


def small_and_zeroed(
    model: nn.Module, groups: Sequence[ChannelGroup]
) -> tuple[IndexMap, nn.Module, nn.Module]:
    """What a window that does not begin at the first channel keeps, and both models."""
    schema = schema_of(model)
    kept = index_map(schema, groups, select_channels(groups, 0.5, "rolling", 3))
    small, zeroed = shrink_model(model, kept), shrink_model(model, index_map(schema, groups, {}))
    load_tensors(zeroed, kept.expand(kept.shrink(tensors_of(model))))
    return kept, small, zeroed
