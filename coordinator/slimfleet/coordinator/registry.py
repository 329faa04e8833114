"""What the coordinator knows about each device: its profile, what it last reported, and what it has cost so far."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from slimfleet.compression import DeviceProfile
from slimfleet.coordinator.sending.holding import NOTHING, Holding


@dataclass(slots=True, kw_only=True)
class DeviceRecord:
    """One device. `node` is the number by which the transport reaches it."""

    node: int
    profile: DeviceProfile
    examples: int
    """Local examples, as last reported."""
    loss: float | None = None
    """Training loss, as last reported."""
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


class Registry:
    """The devices that ever registered, by node."""

    def __init__(self) -> None:
        self._records: dict[int, DeviceRecord] = {}

    def register(self, node: int, profile: DeviceProfile, examples: int) -> None:
        """Add a device, or take its new profile and number of examples."""
        if node not in self._records:
            self._records[node] = DeviceRecord(node=node, profile=profile, examples=examples)
        self._records[node].profile = profile
        self._records[node].examples = examples

    def missing(self, nodes: Iterable[int]) -> list[int]:
        """Those of `nodes` that have not registered."""
        return [node for node in nodes if node not in self._records]

    def __getitem__(self, node: int) -> DeviceRecord:
        return self._records[node]

    def __contains__(self, node: int) -> bool:
        return node in self._records

    def __iter__(self) -> Iterator[DeviceRecord]:
        return (self._records[node] for node in sorted(self._records))

    def __len__(self) -> int:
        return len(self._records)

    def to_json(self) -> list[dict[str, Any]]:
        """Plain values for a checkpoint."""
        return [asdict(record) for record in self]

    @classmethod
    def from_json(cls, records: list[dict[str, Any]]) -> Registry:
        """Undo `to_json`."""
        registry = cls()
        for values in records:
            profile, holding = DeviceProfile(**values["profile"]), Holding(**values["holding"])
            registry._records[values["node"]] = DeviceRecord(
                **{**values, "profile": profile, "holding": holding}
            )
        return registry
