"""slimfleet on one model: its groups, and the model of half width."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from slimfleet.compression.pruning import ChannelGroup, index_map, select_channels
from slimfleet.compression.pruning.nested import tensors_in
from slimfleet.compression.pruning.shrink import shrink_model
from slimfleet.compression.tensors import load_tensors, schema_of, tensors_of
from slimfleet.compression.types import Tensors


def halved(model: nn.Module, groups: Sequence[ChannelGroup]) -> nn.Module:
    """The model of half width, with the first half of the channels of each group."""
    channels = select_channels(groups, 0.5, "prefix")
    return shrink_model(model, index_map(schema_of(model), groups, channels))


def error(model: nn.Module, groups: Sequence[ChannelGroup], inputs: tuple[Tensor, ...]) -> float:
    """How far `model` without half of its channels is from itself with these channels at zero.

    The largest difference over the largest output, both in evaluation mode, with weights that hide nothing.
    """
    rng = np.random.default_rng(0)
    kept = index_map(schema_of(model), groups, select_channels(groups, 0.5, "rolling", 3))
    weights = _telling(tensors_of(model), rng)
    small, zeroed = (
        shrink_model(model, kept).eval(),
        shrink_model(model, index_map(kept.full, groups, {})).eval(),
    )
    load_tensors(small, kept.shrink(weights))
    load_tensors(zeroed, kept.expand(kept.shrink(weights)))
    with torch.no_grad():
        got, expected = list(tensors_in(small(*inputs))), list(tensors_in(zeroed(*inputs)))
    return max(_distance(a, b) for a, b in zip(got, expected, strict=True))


def _telling(tensors: Tensors, rng: np.random.Generator) -> Tensors:
    """Tensors that start at one value everywhere drawn anew: a head at 0 or a layer scale at 1e-6 hides what is wrong.

    Vectors (scales, biases, variances) around 1, matrices around 0.
    """
    told = dict(tensors)
    for name, array in tensors.items():
        if array.dtype.kind != "f" or not array.size or np.ptp(array):
            continue
        matrix = array.ndim > 1
        drawn = (
            rng.normal(size=array.shape) / np.sqrt(array[0].size)
            if matrix
            else rng.uniform(0.5, 1.5, array.shape)
        )
        told[name] = np.asarray(drawn, array.dtype)
    return told


def _distance(a: Tensor, b: Tensor) -> float:
    if not a.is_floating_point():
        return 0.0 if torch.equal(a, b) else float("inf")
    return float((a - b).abs().max() / b.abs().max().clamp(min=torch.finfo(b.dtype).tiny))
