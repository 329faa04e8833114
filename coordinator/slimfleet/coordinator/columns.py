"""Columns: what planning looks at of every device, in arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression import Skip
from slimfleet.coordinator.record import DeviceRecord

__all__ = ["Columns"]


@dataclass(slots=True)
class Columns:
    """n devices in order of node, (n,) each; NaN is what is not known."""

    node: NDArray[np.uint64]
    profile: NDArray[np.int32]
    """Place in the registry's profiles."""
    examples: NDArray[np.int64]
    loss: NDArray[np.float64]
    refused_at_s: NDArray[np.float64]
    rejected: NDArray[np.uint8]
    """Of its last updates, how many were rejected."""
    skips: NDArray[np.int32]
    """Rounds that left it out for its charge and that its record, if there is one, does not count yet."""
    charge: NDArray[np.float64]
    """Its charge when it was last left out for that, where its record does not say so yet."""
    floor: NDArray[np.float64]
    """The battery floor below which that was, ()."""

    @classmethod
    def of(cls, devices: int) -> Columns:
        """Arrays for so many devices, to be filled in."""
        return cls(
            node=np.zeros(devices, np.uint64),
            profile=np.zeros(devices, np.int32),
            examples=np.ones(devices, np.int64),
            loss=np.full(devices, np.nan),
            refused_at_s=np.full(devices, np.nan),
            rejected=np.zeros(devices, np.uint8),
            skips=np.zeros(devices, np.int32),
            charge=np.full(devices, np.nan),
            floor=np.zeros(()),
        )

    def find(self, node: int) -> int:
        """The row of a node, -1 where there is none."""
        nodes = self.node
        row = node - int(nodes[0]) if len(nodes) else -1  # where nodes are consecutive
        if not (0 <= row < len(nodes) and int(nodes[row]) == node):
            row = int(np.searchsorted(nodes, np.uint64(node)))
        return row if row < len(nodes) and int(nodes[row]) == node else -1

    def row_of(self, nodes: NDArray[np.uint64]) -> NDArray[np.intp]:
        """The rows of nodes, (m,); -1 for a node without one."""
        known = self.node
        if not len(known):
            return np.full(len(nodes), -1, np.intp)
        first, last = int(known[0]), int(known[-1])
        if last - first + 1 == len(known):  # consecutive: no search
            inside = (nodes >= known[0]) & (nodes <= known[-1])
            rows: NDArray[np.intp] = np.where(inside, nodes - known[0], 0).astype(np.intp) - ~inside
            return rows
        rows = np.searchsorted(known, nodes)
        found = known[np.minimum(rows, len(known) - 1)] == nodes
        return np.where(found, rows, -1).astype(np.intp)

    def with_nodes(self, nodes: NDArray[np.uint64]) -> Columns:
        """These columns, with rows for nodes that have none yet."""
        new = Columns.of(len(nodes))
        new.node[:] = nodes
        order = np.argsort(np.concatenate((self.node, new.node)), kind="stable")
        merged = {
            each.name: np.concatenate((getattr(self, each.name), getattr(new, each.name)))[order]
            for each in fields(self)
            if each.name != "floor"
        }
        return Columns(**merged, floor=self.floor)

    def take(
        self, rows: NDArray[np.intp], places: NDArray[np.int32], records: Sequence[DeviceRecord]
    ) -> bool:
        """Write records into their rows, `places` being those of their profiles; whether a profile or a number of
        examples is another."""
        examples = np.array([each.examples for each in records], np.int64)
        is_other = not (
            np.array_equal(self.profile[rows], places) and np.array_equal(self.examples[rows], examples)
        )
        self.profile[rows], self.examples[rows] = places, examples
        self.loss[rows] = [np.nan if each.loss is None else each.loss for each in records]
        self.refused_at_s[rows] = [
            np.nan if each.refused_at_s is None else each.refused_at_s for each in records
        ]
        self.rejected[rows] = [each.used.count(False) for each in records]
        return is_other

    def leave_out(self, rows: NDArray[np.intp], charge: NDArray[np.float64], floor: float) -> None:
        """Note that devices were left out for their charge."""
        self.charge[rows], self.floor[()] = charge, floor

    def folded(self, node: int, record: DeviceRecord) -> DeviceRecord:
        """A record, with what only its row says moved into it."""
        row = self.find(node)
        if row < 0:
            return record
        skips, charge = int(self.skips[row]), float(self.charge[row])
        if skips:
            record.skips += skips
            for _ in range(skips):
                record.forget_startup()
            self.skips[row] = 0
        if charge == charge:
            record.last_reason = Skip(constraint="battery", needed=float(self.floor), limit=charge).reason
            self.charge[row] = np.nan
        return record
