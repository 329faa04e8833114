"""Channels: integer labels, joined by union-find, and the channel groups that the joined labels make.

A label stands for one position along one dimension of one tensor. Labels that can only be removed together are
joined; a class of joined labels is one channel. A class that must not be removed is fixed, for a reason.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.pruning.groups import ChannelGroup, Member

Ids = NDArray[np.int64]

Key = tuple[str, int]
"""Tensor and dimension."""


class Channels:
    """Labels from 1; 0 stands for no label."""

    def __init__(self) -> None:
        self._parent: Ids = np.zeros(1, dtype=np.int64)
        self._reasons: dict[int, str] = {}
        self._read: list[Ids] = []

    def copy(self) -> Channels:
        """Channels of their own, with the same labels."""
        other = Channels()
        other._parent, other._reasons, other._read = (
            self._parent.copy(),
            self._reasons.copy(),
            self._read.copy(),
        )
        return other

    def fresh(self, count: int) -> range:
        """So many new labels."""
        start = len(self._parent)
        self._parent = np.concatenate([self._parent, np.arange(start, start + count)])
        return range(start, start + count)

    def join(self, pairs: Ids) -> None:
        """Join the two labels of each row of `pairs`, of shape (n, 2)."""
        roots = self.roots_of(pairs)
        for a, b in np.unique(roots[roots[:, 0] != roots[:, 1]], axis=0).tolist():
            low, high = sorted((self._root(a), self._root(b)))
            if low == high:
                continue
            self._parent[high] = low
            if high in self._reasons:
                self._reasons.setdefault(low, self._reasons[high])

    def fix(self, labels: Ids, reason: str) -> None:
        """Keep `labels`, and all that is joined to them, whole. The first reason given stays."""
        for root in np.unique(self.roots_of(labels)).tolist():
            self._reasons.setdefault(root, reason)

    def roots_of(self, labels: Ids) -> Ids:
        """The label that stands for the class of each of `labels`."""
        roots = self._parent[labels]
        while (roots != (above := self._parent[roots])).any():
            roots = above
        self._parent[labels] = roots
        return roots

    def are_fixed(self, labels: Ids) -> bool:
        """Whether all `labels`, none of which is 0, are fixed by now."""
        return all(root in self._reasons for root in np.unique(self.roots_of(labels)).tolist())

    def read(self, labels: Ids) -> None:
        """Note that a weight mixes `labels` into something else: only such channels can be missed."""
        self._read.append(labels)

    def roots(self) -> Ids:
        """Label -> the label that stands for its class."""
        return self.roots_of(np.arange(len(self._parent)))

    def reasons(self) -> dict[int, str]:
        """Root -> why its class is kept whole, for every class that is."""
        found = {self._root(label): reason for label, reason in self._reasons.items()}
        read = set(self.roots()[np.concatenate(self._read)].tolist()) if self._read else set()
        unread = set(self.roots()[1:].tolist()) - read
        return {**dict.fromkeys(unread, "no layer reads them"), **found}

    def _root(self, label: int) -> int:
        while (parent := int(self._parent[label])) != label:
            label = parent
        return label


def groups_of(
    channels: Channels, sites: Mapping[Key, range], order: Sequence[str], written: Collection[Key]
) -> Iterator[tuple[ChannelGroup, Ids]]:
    """Groups of the free channels that own equally many positions in the same tensors, each with its roots.

    `sites` gives the labels along each dimension, `order` is that of the state dict, in which members come, and
    `written` are the dimensions that outputs of layers lie along: a group is named by the first layer that writes it
    (`name:2` where a layer writes a second group), or else by its first tensor.
    """
    rank = {name: i for i, name in enumerate(order)}
    keys = sorted(sites, key=lambda key: (rank[key[0]], key[1]))
    roots = channels.roots()
    fixed = channels.reasons()
    owned: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for k, key in enumerate(keys):
        for position, root in enumerate(roots[list(sites[key])].tolist()):
            if root not in fixed:
                owned[root][k].append(position)

    alike: dict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
    for root, channel in owned.items():
        if len(channel) < 2:
            continue  # what one tensor alone holds is made or read by nothing that could follow
        alike[tuple((k, len(positions)) for k, positions in channel.items())].append(root)
    names: list[str] = []
    for form, members in sorted(
        alike.items(), key=lambda item: (item[0][0][0], owned[item[1][0]][item[0][0][0]])
    ):
        members.sort(key=lambda root: owned[root][form[0][0]])
        name = _name([keys[k] for k, _ in form], written, names)
        names.append(name)
        group = ChannelGroup(
            name,
            len(members),
            tuple(
                Member(*keys[k], np.array([owned[root][k] for root in members], dtype=np.intp))
                for k, _ in form
            ),
        )
        yield group, np.array(members, dtype=np.int64)


def _name(keys: Sequence[Key], written: Collection[Key], earlier: Sequence[str]) -> str:
    tensor = next((key[0] for key in keys if key in written), None)
    layer = keys[0][0] if tensor is None else tensor.rpartition(".")[0]
    count = sum(name.partition(":")[0] == layer for name in earlier)
    return f"{layer}:{count + 1}" if count else layer
