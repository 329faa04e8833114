"""Dispatches: one device's work, and what the coordinator remembers of it until the answer comes."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from slimfleet.compression import Assignment, Budget, Cost, Payload
from slimfleet.compression.pruning import IndexMap
from slimfleet.coordinator.sending.versions import NOTHING, Holding


@dataclass(frozen=True, slots=True)
class Dispatch:
    """A plan for one device, and the global model shrunk and encoded for it."""

    node: int
    assignment: Assignment
    payload: Payload
    index_map: IndexMap
    """Where the elements of the shrunk model are in the full one."""
    limits: Budget
    """Budget that the spent cost is judged by, whether or not the device was told to keep it."""
    predicted: Cost
    holding_after: Holding = NOTHING
    """What the device holds once it has decoded the payload."""
    sent_s: float = 0.0
    """When it was put in flight, by the environment's time."""
    handed_out_at: float = field(default=inf, compare=False)
    """By the coordinator's stopwatch; never, where a killed coordinator did."""

    @property
    def plan_id(self) -> int:
        """Number by which the answer names this dispatch; unique for every device and round."""
        return self.assignment.plan_id

    @property
    def version(self) -> int:
        """The round whose model the device starts from."""
        return self.assignment.round_number

    @property
    def update_map(self) -> IndexMap:
        """The same of an update's elements: frozen tensors are not among them."""
        return self.index_map.moving
