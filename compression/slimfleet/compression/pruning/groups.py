"""Channel groups: the positions of a model's tensors that can only be removed together.

A channel of a convolution owns one position of its kernel, of its bias, of each statistic of the batch norm
behind it and, in the next layer's kernel, one input position; behind a flatten it owns a whole block. A
recurrent unit owns one row in every gate. All are the same thing: some positions per tensor and dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.errors import BadInput


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """What the channels of a group own along one dimension of one tensor."""

    tensor: str
    dim: int
    positions: NDArray[np.intp]
    """Shape (channels, k): the k positions along `dim` that belong to each channel; none belongs to two."""


@dataclass(frozen=True, slots=True)
class Size:
    """An integer attribute of a layer, such as a number of heads, that shrinks with a group."""

    layer: str
    """The layer's path in the model."""
    attribute: str
    """Its name; `name.i` for one item of a tuple or list."""
    per_channel: int
    """How much smaller it is for each channel removed."""


@dataclass(frozen=True, slots=True, eq=False)
class ChannelGroup:
    """Channels that look alike and of which any subset can be kept.

    A channel is the least that can be removed: one filter, one recurrent unit, one attention head, or all
    filters of one group of a grouped convolution or of a group norm.
    """

    name: str
    size: int
    """Number of channels."""
    members: tuple[Member, ...]
    min_channels: int = 1
    """The fewest channels that may be kept."""
    sizes: tuple[Size, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.min_channels <= self.size:
            raise BadInput(
                f"group {self.name!r}: min_channels is {self.min_channels}, must be in 1..{self.size}"
            )
        for member in self.members:
            if member.positions.ndim != 2 or len(member.positions) != self.size:
                raise BadInput(
                    f"group {self.name!r}: positions in {member.tensor!r} have shape "
                    f"{member.positions.shape}, must be ({self.size}, k)"
                )


@dataclass(frozen=True, slots=True)
class LeftWhole:
    """A layer whose output channels no sub-model can lose, and why."""

    name: str
    """The layer's path in the model; empty for the model itself."""
    size: int
    """Number of its output channels."""
    reason: str
    """A short clause for people, as in "its channels are outputs of the model"."""


@dataclass(frozen=True, slots=True, eq=False)
class Discovery:
    """What was found out about the channels of a model."""

    groups: tuple[ChannelGroup, ...]
    """In the order of the model's state dict."""
    whole: tuple[LeftWhole, ...] = ()
    """The layers with output channels in no group, in the same order."""
