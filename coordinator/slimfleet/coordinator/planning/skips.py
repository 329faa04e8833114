"""Skips: devices without a plan in one round, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression import Skip

__all__ = ["Low", "Skips"]

Nodes = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Low:
    """Devices below the battery floor, as a journal keeps them."""

    nodes: tuple[int, ...]
    charge: tuple[float, ...]
    floor: float


class Skips(Mapping[int, Skip]):
    """Node -> the constraint that left it without a plan.

    Most of a fleet may be below the battery floor: such devices are two arrays, and a `Skip` is made of one when it is
    asked for. Each node comes once.
    """

    def __init__(self, single: Mapping[int, Skip] = MappingProxyType({})) -> None:
        self.single = dict(single)
        """Skips that were made one by one."""
        self.low = np.empty(0, np.uint64)
        """Nodes below the battery floor, sorted, (n,)."""
        self.charge = np.empty(0, np.float64)
        """Of these, (n,)."""
        self.floor = 0.0

    @classmethod
    def of(cls, single: Mapping[int, Skip], low: Low) -> Skips:
        """What `single` and `low_kept` gave."""
        skips = cls(single)
        skips.add_low(np.array(low.nodes, np.uint64), np.array(low.charge, np.float64), low.floor)
        return skips

    def low_kept(self) -> Low:
        """The devices below the battery floor in plain numbers."""
        return Low(nodes=tuple(self.low.tolist()), charge=tuple(self.charge.tolist()), floor=self.floor)

    def add(self, node: int, skip: Skip) -> None:
        """Note one device, in place of what was noted of it before."""
        if self._is_low(node):
            keep = self.low != np.uint64(node)
            self.low, self.charge = self.low[keep], self.charge[keep]
        self.single[node] = skip

    def add_low(self, nodes: Nodes, charge: NDArray[np.float64], floor: float) -> None:
        """Note devices of so much charge below the floor, sorted by node, in place of what was noted before."""
        earlier = self.low[~np.isin(self.low, nodes)] if len(self.low) else self.low
        charges = self.charge[~np.isin(self.low, nodes)] if len(self.low) else self.charge
        order = np.argsort(merged := np.concatenate((earlier, nodes)), kind="stable")
        self.low, self.charge, self.floor = merged[order], np.concatenate((charges, charge))[order], floor
        for node in [node for node in self.single if self._is_low(node)]:
            del self.single[node]

    def update(self, later: Skips) -> None:
        """Take another plan of the same round over this one."""
        if len(later.low):
            self.add_low(later.low, later.charge, later.floor)
        for node, skip in later.single.items():
            self.add(node, skip)

    def counts(self) -> dict[str, int]:
        """Constraint -> number of devices."""
        found = Counter(skip.constraint for skip in self.single.values())
        return dict(found + Counter(battery=len(self.low)))

    def nodes(self) -> Nodes:
        """Every node, in no particular order."""
        return np.concatenate((self.low, np.array(list(self.single), np.uint64)))

    def __getitem__(self, node: int) -> Skip:
        if node in self.single:
            return self.single[node]
        if not self._is_low(node):
            raise KeyError(node)
        charge = float(self.charge[np.searchsorted(self.low, np.uint64(node))])
        return Skip(constraint="battery", needed=self.floor, limit=charge)

    def __iter__(self) -> Iterator[int]:
        yield from sorted([*self.single, *self.low.tolist()])

    def __len__(self) -> int:
        return len(self.single) + len(self.low)

    def _is_low(self, node: int) -> bool:
        row = int(np.searchsorted(self.low, np.uint64(node)))
        return row < len(self.low) and int(self.low[row]) == node
