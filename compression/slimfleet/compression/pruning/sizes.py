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

MOST_SIGHTINGS = 128
"""Of one size of one layer that are kept."""

_Sighting = tuple[Tensor, int]
"""A compact slot of labels, and the dimension along which a size counts them."""


class Sightings:
    """Where sizes were seen, and which channels have to stay as many as others."""

    def __init__(self) -> None:
        self._given: dict[nn.Module, list[Ids]] = {}
        self._ties: list[tuple[Ids, Ids]] = []
        self._attributes: dict[nn.Module, tuple[str, dict[int, list[str]]]] = {}
        self._names: dict[tuple[str, int], list[str]] = {}
        self._seen: dict[tuple[str, int], list[list[_Sighting]]] = defaultdict(list)
        self._around: dict[tuple[str, int], list[list[_Sighting]]] = defaultdict(list)
        self._entering: dict[tuple[str, int], list[list[_Sighting]]] = defaultdict(list)

    def watch(self, model: nn.Module) -> None:
        """Look at the attributes of the layers of `model`, which is about to run."""
        self._attributes = {module: (path, _integers(module)) for path, module in model.named_modules()}
        self._names = {
            (path, size): names for path, sizes in self._attributes.values() for size, names in sizes.items()
        }

    def unwatch(self) -> None:
        """Let go of the layers of the model that ran."""
        self._attributes, self._given = {}, {}

    def enter(self, layer: nn.Module, tensors: Sequence[Tensor], shadow: Shadow) -> None:
        """Note what a layer is given: sizes, and views in it, may come from there."""
        for tensor in tensors:
            self._note(layer, tensor, shadow, self._entering)
        self._given[layer] = [vector for tensor in tensors for vector in _vectors(tensor, shadow)]

    def view(self, layer: nn.Module, tensor: Tensor, sizes: Sequence[int], shadow: Shadow) -> None:
        """Note a view that was given its `sizes`, one of which may be that of the layer's input."""
        if not _knows_sizes(layer) and any(len(given) in sizes for given in self._given.get(layer, ())):
            for own in _vectors(tensor, shadow):
                self._ties += [(own, given) for given in self._given[layer] if len(own) == len(given)]

    def tie_to_inputs(self, channels: Channels) -> None:
        """Join, place by place, channels inside a layer to those of its input that have to stay as many."""
        for own, given in self._ties:
            channels.join(np.stack([own, given], axis=1))

    def tie_alike(self, channels: Channels) -> None:
        """Join, place by place, all that one size of a layer counts."""
        for key in self._names:
            slots = [slot for sighting in self._seen.get(key, ()) for slot, _ in sighting]
            vectors = [vector for slot in slots for vector in _runs(slot)]
            for vector in vectors[1:]:
                channels.join(np.stack([vectors[0], vector], axis=1))

    def note(self, layer: nn.Module, tensor: Tensor, shadow: Shadow) -> None:
        """Note the sizes of `layer`, and of the layers in it, that a tensor has along a labelled dimension."""
        self._note(layer, tensor, shadow, self._seen)
        for child in layer.children():
            self._note(child, tensor, shadow, self._around)

    def _note(
        self,
        layer: nn.Module,
        tensor: Tensor,
        shadow: Shadow,
        seen: dict[tuple[str, int], list[list[_Sighting]]],
    ) -> None:
        path, sizes = self._attributes[layer]
        for size in set(tensor.shape) & sizes.keys():
            sightings = seen[path, size]
            if len(sightings) == MOST_SIGHTINGS:
                continue
            slots = map(compact, shadow.read(tensor).channels)
            found = [
                (slot, dim) for slot in slots for dim in sorted(varying(slot)) if slot.shape[dim] == size
            ]
            last = sightings[-1] if sightings else []
            if found and not (len(found) == len(last) and all(map(_same, found, last))):
                sightings.append(found)

    def sizes(
        self, roots: Ids, members: Mapping[int, str], inputs_first: bool = False
    ) -> Iterator[tuple[str, Size]]:
        """Group -> an attribute that its channels count in. `members` is root -> group, for all in a group.

        As large as one attribute may also be another: those that start with `in_` mean what enters the layer, others
        what is seen in it, in the order in which both are named; with `inputs_first` all mean what enters it if that
        is as large.
        """
        for (path, size), names in self._names.items():
            inner = [name for name in names if not name.startswith("in_")]
            key = path, size
            # The layer around it, where a layer's own forward pass shows nothing.
            entering, seen = self._entering.get(key, []), self._seen.get(key) or self._around.get(key, [])
            inside = [*entering, *seen] if inputs_first else seen
            for wanted, sightings in ((inner, inside), ([n for n in names if n not in inner], entering)):
                counted = [
                    [_counts(roots[slot.numpy()], dim, members) for slot, dim in sighting]
                    for sighting in sightings
                ]
                for name, counts in zip(wanted, _meant(counted, len(wanted)), strict=False):
                    yield from ((group, Size(path, name, count)) for group, count in counts.items())


_Counts = dict[str, int]
"""Group -> how much of a size one of its channels owns; empty where the size has nothing to do with channels."""


def _meant(counted: Sequence[Sequence[_Counts | None]], names: int) -> Iterator[_Counts]:
    """What so many sizes of one value count, from all that was seen to be as long."""
    known = [[counts for counts in each if counts is not None] for each in counted]
    known = [each for each in known if each]
    if names == 1:
        # The first tensor as long decides; a later one may be so by chance.
        if known:
            yield next((counts for counts in known[0] if counts), {})
        return
    different: list[_Counts] = []
    for counts in (counts for each in known for counts in each):
        if counts not in different:
            different.append(counts)
    rest = next((counts for counts in different if counts), {})
    yield from (*different[:names], *[rest] * (names - len(different)))


def _vectors(tensor: Tensor, shadow: Shadow) -> list[Ids]:
    """The labels along the dimensions of a tensor that give each label one run of positions."""
    return [vector for slot in shadow.read(tensor).channels for vector in _runs(compact(slot))]


def _runs(slot: Tensor) -> Iterator[Ids]:
    if len(varying(slot)) == 1:
        vector: Ids = slot.flatten().numpy()
        if vector.all() and len(np.unique(vector)) == 1 + np.count_nonzero(np.diff(vector)):
            yield vector


def _counts(classes: Ids, dim: int, members: Mapping[int, str]) -> _Counts | None:
    """How many positions along `dim` each channel owns; None where no number says so."""
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


def _same(a: _Sighting, b: _Sighting) -> bool:
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
