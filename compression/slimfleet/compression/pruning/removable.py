"""Self-test of channel groups: removing channels must be the same as setting them to zero."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from slimfleet.compression.errors import PayloadError
from slimfleet.compression.pruning.groups import ChannelGroup
from slimfleet.compression.pruning.index_map import index_map
from slimfleet.compression.pruning.nested import tensors_in
from slimfleet.compression.pruning.shrink import shrink_model
from slimfleet.compression.tensors import load_tensors, schema_of, tensors_of
from slimfleet.compression.types import Tensors

_TOLERANCE = 1e-4
"""Of the largest output: far above float32 rounding, far below what one misplaced channel does."""


def removable(model: nn.Module, groups: Sequence[ChannelGroup], inputs: tuple[Tensor, ...]) -> bool:
    """Whether `model` without half of the channels of `groups` computes what it does with these set to zero.

    Uses random weights, and noise for inputs that are all zero, since zeros hide faults. `model` must be in
    evaluation mode; it is not changed.
    """
    rng = np.random.default_rng(0)
    inputs = tuple(_noise_for_zeros(tensor, rng) for tensor in inputs)
    schema = schema_of(model)
    full = _random_tensors(model, rng)
    halves = {g.name: np.sort(rng.permutation(g.size)[: max(g.min_channels, g.size // 2)]) for g in groups}
    kept = index_map(schema, groups, halves)

    zeroed = copy.deepcopy(model)
    load_tensors(zeroed, kept.expand(kept.shrink(full)))
    try:
        small = shrink_model(model, kept)
        load_tensors(small, kept.shrink(full))
        with torch.no_grad():
            got = list(tensors_in(small(*inputs)))
    except (RuntimeError, ValueError, IndexError, PayloadError):
        # Layers whose sizes no longer fit one another, or the map: that is the answer.
        return False
    with torch.no_grad():
        expected = list(tensors_in(zeroed(*inputs)))
    return len(got) == len(expected) and all(_agree(a, b) for a, b in zip(got, expected, strict=True))


def _noise_for_zeros(tensor: Tensor, rng: np.random.Generator) -> Tensor:
    if not tensor.is_floating_point() or bool(tensor.any()):
        return tensor
    return torch.from_numpy(rng.normal(size=tuple(tensor.shape))).to(tensor)


def _random_tensors(model: nn.Module, rng: np.random.Generator) -> Tensors:
    """Matrices scaled by fan-in, vectors (norms, biases, variances) near one: activations stay of order one.

    Names of one tied parameter get different values, so that a group which would cut the tie fails the test.
    """
    tensors: Tensors = {}
    for name, array in tensors_of(model).items():
        if array.dtype.kind == "f":
            if array.ndim > 1:
                values = rng.normal(size=array.shape) / np.sqrt(max(1, array[:1].size))
            else:
                values = rng.uniform(0.5, 1.5, size=array.shape)
            array = np.asarray(values, dtype=array.dtype)
        tensors[name] = array
    return tensors


def _agree(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    scale = float(b.abs().max()) if b.numel() else 0.0
    return bool(((a - b).abs() <= _TOLERANCE * scale).all())
