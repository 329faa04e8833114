"""Sizes: integer attributes of layers that must shrink with the channels they count.

A forward pass written by hand reads sizes such as a number of heads from its layer. While a model is traced, each
tensor that is as long along a labelled dimension as an attribute of the running layer says is noted: once the labels
are joined, they tell how many of the positions that the attribute counts each channel owns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from slimfleet.compression.pruning.channels import Channels, Ids
from slimfleet.compression.pruning.full_norm import OWN_SIZES
from slimfleet.compression.pruning.groups import Size
from slimfleet.compression.pruning.relate import varying
from slimfleet.compression.pruning.shadow import Shadow, compact

MOST_SIGHTINGS = 8
"""Of one attribute that are kept."""


class Sightings:
    """Where attributes were seen as sizes."""

    def __init__(self) -> None:
        self._given: dict[nn.Module, list[Ids]] = {}
        self._ties: list[tuple[Ids, Ids]] = []
        self._attributes: dict[nn.Module, list[tuple[str, dict[int, list[str]]]]] = {}
        self._seen: dict[tuple[str, str], list[list[tuple[Tensor, int]]]] = defaultdict(list)

    def enter(self, layer: nn.Module, tensors: Sequence[Tensor], shadow: Shadow) -> None:
        """Note what a layer is given: views in it may take their sizes from there."""
        for tensor in tensors:
            # As large as `in_channels` may also be what the layer makes; by its name it means what it gets.
            self.note(layer, tensor, shadow, prefix="in_")
        self._given[layer] = [vector for tensor in tensors for vector in _vectors(tensor, shadow)]

    def view(self, layer: nn.Module, tensor: Tensor, sizes: Sequence[int], shadow: Shadow) -> None:
        """Note a view that was given its `sizes`, one of which may be that of the layer's input."""
        if not _knows_sizes(layer) and any(len(given) in sizes for given in self._given.get(layer, ())):
            for own in _vectors(tensor, shadow):
                self._ties += [(own, given) for given in self._given[layer] if len(own) == len(given)]

    def tie(self, channels: Channels) -> bool:
        """Join, place by place, channels inside a layer to those of its input that have to stay as many."""
        before = channels.roots()
        for own, given in self._ties:
            channels.join(np.stack([own, given], axis=1))
        return bool((channels.roots() != before).any())

    def watch(self, model: nn.Module) -> None:
        """Look at the attributes of the layers of `model`, which is about to run."""
        own = {module: (path, _integers(module)) for path, module in model.named_modules()}
        self._attributes = {
            module: [own[module], *(own[child] for child in module.children())] for module in own
        }

    def note(self, layer: nn.Module, tensor: Tensor, shadow: Shadow, prefix: str = "") -> None:
        """Note the attributes of `layer`, and of those in it, that count labels along a dimension of `tensor`."""
        for path, integers in self._attributes[layer]:
            self._note(path, integers, tensor, shadow, prefix)

    def _note(
        self, path: str, integers: Mapping[int, list[str]], tensor: Tensor, shadow: Shadow, prefix: str
    ) -> None:
        for name in sorted({name for size in tensor.shape for name in integers.get(size, ())}):
            if not name.startswith(prefix):
                continue
            seen = self._seen[path, name]
            if len(seen) == MOST_SIGHTINGS:
                continue
            sighting = [
                (slot, dim)
                for slot in map(compact, shadow.read(tensor).channels)
                for dim in _meant(name, slot, integers)
            ]
            if sighting and not any(map(_same, sighting, seen[-1]) if seen else ()):
                seen.append(sighting)

    def sizes(self, roots: Ids, members: Mapping[int, str]) -> Iterator[tuple[str, Size]]:
        """Group -> an attribute that its channels count in. `members` is root -> group, for all in a group."""
        for (path, name), seen in self._seen.items():
            for sighting in seen:
                found = [_counts(roots[slot.numpy()], dim, members) for slot, dim in sighting]
                counts = next((count for count in found if count), {})
                yield from ((group, Size(path, name, count)) for group, count in counts.items())
                if any(count is not None for count in found):
                    # Another tensor as long may be so by chance.
                    break


def _vectors(tensor: Tensor, shadow: Shadow) -> list[Ids]:
    """The labels along the dimensions of a tensor that give each label one run of positions."""
    slots = map(compact, shadow.read(tensor).channels)
    vectors = [slot.flatten().numpy() for slot in slots if len(varying(slot)) == 1]
    return [v for v in vectors if v.all() and len(np.unique(v)) == 1 + np.count_nonzero(np.diff(v))]


def _counts(classes: Ids, dim: int, members: Mapping[int, str]) -> dict[str, int] | None:
    """Group -> the positions along `dim` that each of its channels owns; None where no number says so."""
    rows = np.moveaxis(classes, dim, 0).reshape(classes.shape[dim], -1)
    if (rows == rows[0]).all():
        return {}
    if (rows != rows[:, :1]).any():
        return None
    found: dict[str, set[int]] = defaultdict(set)
    for root, count in zip(*np.unique(rows[:, 0], return_counts=True), strict=True):
        if root in members:
            found[members[root]].add(int(count))
    return {group: counts.pop() for group, counts in found.items() if len(counts) == 1}


def _knows_sizes(layer: nn.Module) -> bool:
    return any(kind.__module__ in OWN_SIZES for kind in type(layer).__mro__)


def _integers(layer: nn.Module) -> dict[int, list[str]]:
    """Value -> the attributes of a layer that hold it; torch's own layers are known otherwise."""
    if _knows_sizes(layer):
        return {}
    found: dict[int, list[str]] = defaultdict(list)
    for name, value in vars(layer).items():
        if type(value) is int and value > 1:
            found[value].append(name)
        elif isinstance(value, tuple | list) and all(type(item) is int for item in value):
            for i, item in enumerate(value):
                if item > 1:
                    found[item].append(f"{name}.{i}")
    return found


def _meant(name: str, slot: Tensor, integers: Mapping[int, list[str]]) -> list[int]:
    """The dimensions of a slot that an attribute may be the size of."""
    for size, names in integers.items():
        if name in names:
            dims = [dim for dim in sorted(varying(slot)) if slot.shape[dim] == size]
            # Sizes that happen to be equal are told apart by the order in which they are named.
            return [dims[names.index(name)]] if 1 < len(dims) == len(names) else dims
    return []


def _same(a: tuple[Tensor, int], b: tuple[Tensor, int]) -> bool:
    return a[1] == b[1] and a[0].shape == b[0].shape and torch.equal(a[0], b[0])


def set_size(layer: nn.Module, attribute: str, value: int) -> None:
    """Set an attribute, or one item of it (`name.i`), to `value`."""
    name, _, item = attribute.partition(".")
    if not item:
        setattr(layer, name, value)
        return
    items = list(getattr(layer, name))
    items[int(item)] = value
    setattr(layer, name, type(getattr(layer, name))(items))


def get_size(layer: nn.Module, attribute: str) -> int:
    """The value of an attribute, or of one item of it."""
    name, _, item = attribute.partition(".")
    value = getattr(layer, name)
    return int(value[int(item)] if item else value)
