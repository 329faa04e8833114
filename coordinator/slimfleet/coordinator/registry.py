"""Registry: each device's profile, what it last reported, and what it has cost so far."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from slimfleet.compression import DeviceProfile
from slimfleet.coordinator.receiving.checks import Norms
from slimfleet.coordinator.sending.versions import NOTHING, Holding


@dataclass(slots=True, kw_only=True)
class DeviceRecord:
    """One device. `node` is the number by which the transport reaches it."""

    node: int
    profile: DeviceProfile
    examples: int
    """Local examples, as last reported."""
    loss: float | None = None
    """Training loss, as last reported."""
    norms: Norms | None = None
    """Of its last update, whether or not that was used."""
    norms_round: int = 0
    """The round of that update."""
    acknowledged_round: int | None = None
    """Last round whose update was accepted."""
    holding: Holding = NOTHING
    """The version of the global model that the device has shown to hold."""
    last_reason: str = ""
    """Why it last got the plan it got, or none."""
    battery: float | None = None
    """Last known state of charge, 0..1."""
    participations: int = 0
    skips: int = 0
    rejections: int = 0
    failures: int = 0
    violations: int = 0
    energy_j: float = 0.0
    uplink_bytes: int = 0
    downlink_bytes: int = 0
    time_s: float = 0.0
    width_sum: float = 0.0
    """Sum of the widths trained; over `participations` it is the mean width."""


@dataclass(slots=True)
class Registry:
    """The devices that ever registered, by node."""

    records: dict[int, DeviceRecord] = field(default_factory=dict)

    def register(self, node: int, profile: DeviceProfile, examples: int) -> None:
        """Add a device, or take its new profile and number of examples."""
        if node not in self.records:
            self.records[node] = DeviceRecord(node=node, profile=profile, examples=examples)
        self.records[node].profile = profile
        self.records[node].examples = examples

    def missing(self, nodes: Iterable[int]) -> list[int]:
        """Those of `nodes` that have not registered."""
        return [node for node in nodes if node not in self.records]

    def nodes(self) -> list[int]:
        """Every node, in order."""
        return sorted(self.records)

    def __getitem__(self, node: int) -> DeviceRecord:
        return self.records[node]

    def __contains__(self, node: int) -> bool:
        return node in self.records

    def __iter__(self) -> Iterator[DeviceRecord]:
        return (self.records[node] for node in self.nodes())

    def __len__(self) -> int:
        return len(self.records)
