"""Sub-networks: what a trained model becomes with fewer channels, blocks and taps, its weights being part of its own.

They share the weights of one model, as in once-for-all networks (Cai et al. 2020, arXiv 1908.09791) and AutoSlim (Yu
and Huang 2019, arXiv 1903.11728). The channels of a group that stay are those of largest weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from slimfleet.compression.model.architectures.blocks import blocks_of
from slimfleet.compression.model.architectures.kernels import crop, cropped, most_rings
from slimfleet.compression.model.architectures.replacing import replaced, why_it_fails
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.layers.skipped import Skipped
from slimfleet.compression.model.rounding.grids import grid_of
from slimfleet.compression.model.slim_model import SlimModel, weights_of
from slimfleet.compression.pruning import ChannelGroup, IndexMap, LeftWhole, index_map, magnitude_scores
from slimfleet.compression.pruning.discover import discover
from slimfleet.compression.pruning.shrink import shrink_model
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.tensors import schema_of

__all__ = ["Axes", "Axis", "Choice", "Space", "Subnet", "on_grids", "space_of", "subnet"]

LEVELS = 8
"""Equal steps of a group's channels."""

BITS = (8, 6, 5, 4, 3, 2)

Axes = frozenset[Literal["width", "depth", "kernel", "bits"]]


@dataclass(frozen=True, slots=True)
class Axis:
    """One choice to make; the first possible value is the largest."""

    kind: Literal["width", "depth", "kernel", "bits"]
    of: str
    """A channel group, a block, a convolution or a weight."""
    values: tuple[int, ...]
    """Channels; 1 and 0 for with and without; rings of taps less; bits."""

    @property
    def name(self) -> str:
        """Kind and subject."""
        return f"{self.kind}:{self.of}"

    def told(self, value: int) -> str:
        """What a value makes of the subject, as a short clause."""
        match self.kind:
            case "width":
                return f"{self.values[0]} -> {value} channels"
            case "depth":
                return "skipped"
            case "kernel":
                return f"kernel without its outer {value} taps"
            case _:
                return f"{value} bits"


Choice = Mapping[str, int]
"""Name of an axis -> one of its values."""


@dataclass(frozen=True)
class Space:
    """All sub-networks of a model."""

    axes: tuple[Axis, ...]
    groups: tuple[ChannelGroup, ...]
    order: Mapping[str, NDArray[np.intp]]
    """The channels of each group, the most important first."""
    schema: ModelSchema
    whole: tuple[LeftWhole, ...]

    @property
    def largest(self) -> Choice:
        """The model itself, at the most bits."""
        return self.level(0.0)

    @property
    def smallest(self) -> Choice:
        """The last value of every axis."""
        return self.level(1.0)

    def level(self, share: float) -> Choice:
        """The same share of the way from the largest to the smallest on every axis; blocks go in the second half."""
        return {axis.name: axis.values[round(share * (len(axis.values) - 1))] for axis in self.axes}

    def drawn(self, rng: np.random.Generator) -> Choice:
        """Every axis at random."""
        return {axis.name: axis.values[rng.integers(len(axis.values))] for axis in self.axes}

    def of_kind(self, kind: str, choice: Choice) -> dict[str, int]:
        """Subject -> chosen value, for the axes of one kind."""
        return {axis.of: choice[axis.name] for axis in self.axes if axis.kind == kind}

    def changes(self, choice: Choice) -> Iterator[tuple[Axis, int]]:
        """The axes on which a choice is smaller than the model, but for what is in a block that is gone."""
        gone = tuple(f"{path}." for path, stays in self.of_kind("depth", choice).items() if not stays)
        for axis in self.axes:
            value = choice[axis.name]
            if (value != axis.values[0] or axis.kind == "bits") and not axis.of.startswith(gone):
                yield axis, value


def space_of(model: nn.Module, central: CentralTask, axes: Axes, narrowest: float) -> Space:
    """The sub-networks of a model along some axes; groups keep at least the share `narrowest` of their channels."""
    found = discover(model, central.example_inputs)
    tensors = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    scores = magnitude_scores(found.groups, tensors)
    order = {name: np.argsort(-score, kind="stable") for name, score in scores.items()}
    widths = [Axis("width", group.name, _counts(group, narrowest)) for group in found.groups]
    space = Space(tuple(widths), found.groups, order, schema_of(model), found.whole)
    kernels = [
        Axis("kernel", path, tuple(range(most_rings(layer) + 1)))
        for path, layer in model.named_modules()
        if "kernel" in axes and most_rings(layer)
    ]
    blocks = blocks_of(model, central.example_inputs) if "depth" in axes else []
    depths = [Axis("depth", path, (1, 0)) for path in blocks if _can_go(model, space, path, central)]
    bits = [Axis("bits", name, BITS) for name in weights_of(model) if "bits" in axes]
    chosen = [axis for axis in widths if "width" in axes and len(axis.values) > 1]
    return replace(space, axes=(*chosen, *depths, *kernels, *bits))


def _counts(group: ChannelGroup, narrowest: float) -> tuple[int, ...]:
    """How many channels a group may have, the most first."""
    shares = [level / LEVELS for level in range(1, LEVELS + 1) if level / LEVELS >= narrowest]
    return tuple(
        sorted({max(round(share * group.size), group.min_channels) for share in shares}, reverse=True)
    )


def _can_go(model: nn.Module, space: Space, path: str, central: CentralTask) -> bool:
    """Whether a model runs without a block at any width: its input and output channels are the same ones."""
    rng = np.random.default_rng(central.seed)
    narrow = [subnet(space, model, choice).model for choice in (space.largest, *map(space.drawn, [rng] * 3))]
    return not any(why_it_fails(replaced(each, path, Skipped()), central) for each in narrow)


@dataclass(frozen=True)
class Subnet:
    """A sub-network, and where its weights lie in those of the whole model."""

    model: nn.Module
    _kept: IndexMap
    _rings: Mapping[str, int]

    def __call__(self, whole: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
        """The outputs of the sub-network with the present weights of `whole`, which get the gradients."""
        weights = dict(whole.named_parameters(remove_duplicate=False))
        own = {name: self._part(name, weights[name]) for name, _ in self.model.named_parameters()}
        return functional_call(self.model, own, inputs)

    def _part(self, name: str, weight: Tensor) -> Tensor:
        for dim, positions in enumerate(self._kept.kept[name]):
            if positions is not None:
                weight = weight.index_select(dim, torch.from_numpy(positions))
        rings = self._rings.get(name.removesuffix(".weight"), 0)
        return cropped(weight, rings) if rings else weight


def subnet(space: Space, model: nn.Module, choice: Choice) -> Subnet:
    """The sub-network of a choice, its weights copied from `model`."""
    widths = space.of_kind("width", choice)
    keep = {name: np.sort(space.order[name][:count]) for name, count in widths.items()}
    kept = index_map(space.schema, space.groups, keep)
    small = shrink_model(model, kept)
    rings = space.of_kind("kernel", choice)
    for path, count in rings.items():
        if count:
            crop(small.get_submodule(path), count)
    for path, stays in space.of_kind("depth", choice).items():
        if not stays:
            small = replaced(small, path, Skipped())
    return Subnet(small, kept, rings)


def on_grids(space: Space, slim: SlimModel, choice: Choice) -> SlimModel:
    """A model with its weights on the grids of the chosen bits, where bits are chosen."""
    bits = space.of_kind("bits", choice)
    weights = weights_of(slim.model)
    grids = {
        name: grid_of(weights[name], count, "channel", "symmetric")
        for name, count in bits.items()
        if name in weights
    }
    return slim.constrained(grids)
