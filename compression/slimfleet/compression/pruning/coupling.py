"""Coupled positions: joined by union-find, and turned into channel groups."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from slimfleet.compression.pruning.groups import ChannelGroup, Member

Site = tuple[str, int, int]
"""A position along a dimension of a tensor: (tensor, dim, position)."""

FIXED: Site = ("", -1, 0)
"""Sites coupled to this one cannot be removed."""

_Channel = dict[tuple[str, int], list[int]]
"""Tensor and dimension -> sorted positions of one channel."""


class Coupling:
    """Sites that can only be removed together; a channel is a set of sites coupled to one another."""

    def __init__(self) -> None:
        self._parent: dict[Site, Site] = {}

    def join(self, sites: Iterable[Site]) -> None:
        """Couple all `sites` to one another."""
        roots = {self._root(site) for site in sites}
        if roots:
            root = roots.pop()
            self._parent.update(dict.fromkeys(roots, root))

    def groups(self, order: Sequence[str]) -> list[ChannelGroup]:
        """Groups of the channels that own equally many positions in the same tensors.

        `order` is that of the state dict: it orders members, and names a group by the layer of its first
        member along dimension 0, which is the layer that writes it (`name:2` where a layer writes a second
        group).
        """
        rank = {name: i for i, name in enumerate(order)}
        alike: dict[tuple[tuple[str, int, int], ...], list[_Channel]] = defaultdict(list)
        for channel in self._channels():
            keys = sorted(channel, key=lambda key: (rank[key[0]], key[1]))
            alike[tuple((tensor, dim, len(channel[tensor, dim])) for tensor, dim in keys)].append(channel)

        groups: list[ChannelGroup] = []
        for form, channels in alike.items():
            keys = [(tensor, dim) for tensor, dim, _ in form]
            channels.sort(key=lambda channel: channel[keys[0]])
            members = tuple(
                Member(*key, np.array([channel[key] for channel in channels], dtype=np.intp)) for key in keys
            )
            groups.append(ChannelGroup(_name(keys, groups), len(channels), members))
        return groups

    def _channels(self) -> list[_Channel]:
        fixed = self._root(FIXED)
        channels: dict[Site, _Channel] = defaultdict(lambda: defaultdict(list))
        for site in sorted(self._parent):
            root = self._root(site)
            if root != fixed:
                tensor, dim, position = site
                channels[root][tensor, dim].append(position)
        return list(channels.values())

    def _root(self, site: Site) -> Site:
        parent = self._parent.setdefault(site, site)
        while parent != self._parent[parent]:
            self._parent[site] = parent = self._parent[parent]
        return parent


def _name(keys: Sequence[tuple[str, int]], groups: Sequence[ChannelGroup]) -> str:
    tensor = next((tensor for tensor, dim in keys if dim == 0), keys[0][0])
    layer = tensor.rpartition(".")[0]
    earlier = sum(group.name.partition(":")[0] == layer for group in groups)
    return f"{layer}:{earlier + 1}" if earlier else layer
