"""Registry: all devices that ever registered.

A deployed device introduces itself, and has a record from then on. A simulated fleet is enrolled at once: its devices
are rows of arrays, and one gets a record when it is first considered for work. What planning looks at of every device
is in the arrays for both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from slimfleet.compression import DeviceProfile, Skip, Tensors
from slimfleet.compression.types import USUAL_STARTUP, Startup
from slimfleet.coordinator.columns import Columns
from slimfleet.coordinator.receiving.checks import Norms
from slimfleet.coordinator.record import DeviceRecord

__all__ = ["Registry", "nodes_of"]

Nodes = NDArray[np.uint64]


class Registry:
    """All devices that ever registered, by node, the number by which the transport reaches a device.

    `columns` shows a record as it was when it was last taken from the registry by node: one that is kept by a caller
    over the making of the columns must be taken again before it is changed.
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.profiles: list[DeviceProfile] = []
        """Distinct profiles, to which `Columns.profile` points."""
        self._places: dict[DeviceProfile, int] = {}
        self._records: dict[int, DeviceRecord] = {}
        self._taken: set[int] = set()
        """Nodes whose records may have changed since the columns were made."""
        self._unsaved: set[int] = set()
        """Nodes whose records may have changed since the last call of `changed`."""
        self._norms: dict[int, DeviceRecord] = {}
        """Records of devices that have sent an update."""
        self._columns = Columns.of(0)
        self._enrolled = self._count = 0
        self.fingerprint = ""
        """Of the fleet as it was enrolled; empty where none was."""
        self.claims = 0
        """Grows whenever the profiles or the examples in the columns change."""
        self._names: tuple[int, Counter[str]] = -1, Counter()

    def register(
        self, node: int, profile: DeviceProfile, examples: int, startup: Startup = USUAL_STARTUP
    ) -> None:
        """Add a device, or take its new profile, number of examples and start-up."""
        if node not in self:
            self._records[node] = DeviceRecord(node=node, profile=profile, examples=examples)
            self._count += 1
        record = self[node]
        record.profile, record.examples, record.startup = profile, examples, startup

    def enrol(
        self,
        first_node: int,
        profiles: Sequence[DeviceProfile],
        which: NDArray[np.integer],
        examples: NDArray[np.integer],
    ) -> None:
        """Add a fleet of n devices under consecutive nodes: `which` (n,) points into `profiles`, `examples` (n,) is how
        many each holds. Raises ValueError where a device is registered already."""
        if self._records or self._enrolled:
            raise ValueError(f"a fleet is enrolled first, the registry has {len(self)} devices")
        self._enrolled = self._count = len(which)
        places = np.array([self._place(profile) for profile in profiles], np.int32)
        self._columns = Columns.of(len(which))
        self._columns.node[:] = np.arange(first_node, first_node + len(which), dtype=np.uint64)
        self._columns.profile[:], self._columns.examples[:] = places[which], examples
        self.claims += 1
        content = xxhash.xxh3_64(repr(list(profiles)).encode())
        for array in (self._columns.node, self._columns.profile, self._columns.examples):
            content.update(array.data)
        self.fingerprint = f"{len(which)} devices, {content.hexdigest()}"

    @property
    def columns(self) -> Columns:
        """What planning looks at of every device, as the records are now."""
        if self._taken:
            self._take_over()
        return self._columns

    def missing(self, nodes: Sequence[int]) -> list[int]:
        """Those of `nodes` that have not registered."""
        if self._enrolled:
            asked = nodes_of(nodes)
            return [int(node) for node in asked[self.columns.row_of(asked) < 0]]
        return [node for node in nodes if node not in self._records]

    def registered(self, nodes: Sequence[int]) -> Nodes:
        """Those of `nodes` that have registered, sorted."""
        if isinstance(nodes, range) and self._enrolled == len(nodes) == len(self):
            return self.columns.node
        asked = np.unique(nodes_of(nodes))
        return asked[self.columns.row_of(asked) >= 0]

    def profile(self, node: int) -> DeviceProfile:
        """The profile of a device; it makes no record."""
        if node in self._records:
            return self._records[node].profile
        return self.profiles[int(self._columns.profile[self._row(node)])]

    def class_counts(self, nodes: Nodes | None = None) -> Counter[str]:
        """How many of the devices of these nodes, or of all, are of each device class."""
        columns = self.columns
        places = columns.profile if nodes is None else columns.profile[columns.row_of(nodes)]
        counts = np.bincount(places, minlength=len(self.profiles))
        classes: Counter[str] = Counter()
        for profile, count in zip(self.profiles, counts.tolist(), strict=True):
            if count:
                classes[profile.device_class] += count
        return classes

    def norms_since(self, round_number: int) -> list[Norms]:
        """Norms of the last update of every device that sent one in this round or later."""
        if self._taken:
            self._take_over()
        self._norms = {node: each for node, each in self._norms.items() if each.norms_round >= round_number}
        return [each.norms for each in self._norms.values() if each.norms is not None]

    def count_skips(self, skips: Mapping[int, Skip], low: Nodes) -> None:
        """Count a round in which devices got no plan: `skips`, and `low` for which no `Skip` was made one by one."""
        for node in skips:
            self[node].skips += 1
            self[node].forget_startup()
        self._columns.skips[self._columns.row_of(low)] += 1

    def label(self, node: int) -> str:
        """What messages call a device: the name in its profile, with the end of its number where others have that name.

        A name comes from outside: what does not print is replaced.
        """
        if node not in self:
            return f"an unknown device (node {node})"
        name = self.profile(node).name
        shown = "".join(c if c.isprintable() else "?" for c in name) or "a device"
        is_shared = self._named()[name] > 1
        return f"{shown}, node {_tail(node)}" if is_shared or not name.strip() else shown

    def arrays(self) -> Tensors:
        """What lasts of the devices that is in no record; nothing where that is 0 for all."""
        columns = self.columns
        if not columns.skips.any():
            return {}
        return {"skips": columns.skips, "charge": columns.charge, "floor": columns.floor}

    def changed(self) -> list[DeviceRecord]:
        """The records that may have changed since the last call."""
        nodes, self._unsaved = self._unsaved, set()
        return [self._records[node] for node in nodes]

    def restore(self, records: Iterable[DeviceRecord], arrays: Tensors) -> None:
        """Return to what iterating and `arrays` gave, in a registry of the same enrolled fleet.

        Raises ValueError where the arrays are not of as many devices.
        """
        if not self._enrolled:
            self._clear()
        self.claims += 1
        self._records = {record.node: record for record in records}
        self._taken, self._unsaved = set(self._records), set(self._records)
        columns = self.columns
        self._count = len(columns.node)
        for name, array in arrays.items():
            own = getattr(columns, name)
            if array.shape != own.shape or array.dtype != own.dtype:
                raise ValueError(f"{name} is of {array.shape} devices, the registry has {len(self)}")
            own[...] = array

    def __getitem__(self, node: int) -> DeviceRecord:
        record = self._records.get(node)
        if record is None:
            row = self._row(node)
            record = self._records[node] = DeviceRecord(
                node=node,
                profile=self.profiles[int(self._columns.profile[row])],
                examples=int(self._columns.examples[row]),
            )
        self._taken.add(node)
        self._unsaved.add(node)
        return self._columns.folded(node, record)

    def __contains__(self, node: int) -> bool:
        return node in self._records or (self._enrolled > 0 and self._columns.find(node) >= 0)

    def __iter__(self) -> Iterator[DeviceRecord]:
        """The records there are, in order of node."""
        return (self[node] for node in sorted(self._records))

    def __len__(self) -> int:
        return self._count

    def _row(self, node: int) -> int:
        row = self._columns.find(node)
        if row < 0:
            raise KeyError(node)
        return row

    def _place(self, profile: DeviceProfile) -> int:
        place = self._places.setdefault(profile, len(self.profiles))
        if place == len(self.profiles):
            self.profiles.append(profile)
        return place

    def _take_over(self) -> None:
        """Bring the columns up to date with the records that may have changed."""
        taken = sorted(self._taken)
        self._taken.clear()
        new = [node for node in taken if self._columns.find(node) < 0]
        if new:
            self._columns = self._columns.with_nodes(np.array(new, np.uint64))
        records = [self._records[node] for node in taken]
        places = np.array([self._place(record.profile) for record in records], np.int32)
        rows = self._columns.row_of(np.array(taken, np.uint64))
        if new:
            self.claims += 1
        if self._columns.take(rows, places, records):
            self.claims += 1
        self._norms |= {record.node: record for record in records if record.norms is not None}

    def _named(self) -> Counter[str]:
        columns = self.columns
        if self._names[0] != self.claims:
            counts = np.bincount(columns.profile, minlength=len(self.profiles)).tolist()
            names: Counter[str] = Counter()
            for profile, count in zip(self.profiles, counts, strict=True):
                names[profile.name] += count
            self._names = self.claims, names
        return self._names[1]


def nodes_of(nodes: Sequence[int] | Nodes) -> Nodes:
    """Nodes as an array, in their order; those of a range without a Python number for each."""
    if isinstance(nodes, range):
        return np.arange(nodes.start, nodes.stop, nodes.step, dtype=np.uint64)
    return np.asarray(nodes, np.uint64)


def _tail(node: int) -> str:
    """A node's number; of the long ones that Flower draws, the last digits."""
    digits = str(node)
    return digits if len(digits) <= 6 else f"…{digits[-4:]}"
