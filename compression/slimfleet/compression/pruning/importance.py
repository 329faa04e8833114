"""Importance of channels, by the size of their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.pruning.groups import ChannelGroup


def magnitude_scores(
    groups: Sequence[ChannelGroup], tensors: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[np.float64]]:
    """Group name -> L2 norm, one a channel, over everything the channel owns in kernels and matrices.

    The group importance of DepGraph (Fang et al., CVPR 2023, section 3.3) with equal weights. Vectors are
    left out: a bias or a running mean does not say how much a channel is used.
    """
    return {group.name: _norms(group, tensors) for group in groups}


def _norms(group: ChannelGroup, tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    squares = np.zeros(group.size)
    for member in group.members:
        tensor = tensors[member.tensor]
        if tensor.ndim < 2:
            continue
        others = tuple(dim for dim in range(tensor.ndim) if dim != member.dim)
        by_position = np.square(tensor, dtype=np.float64).sum(axis=others)
        squares += by_position[member.positions].sum(axis=1)
    return np.sqrt(squares)
