"""Registry: each device's profile, what it last reported, and what it has cost so far."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from slimfleet.compression import DeviceProfile
from slimfleet.compression.types import UNKNOWN, USUAL_STARTUP, Condition, Evaluated, Startup
from slimfleet.coordinator.receiving.checks import Norms
from slimfleet.coordinator.sending.versions import NOTHING, Holding

REMEMBERED = 4
"""Rounds that make a device's reputation."""


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
    """Why it last got its plan, or none."""
    stated: Condition = UNKNOWN
    """Its condition, as it stated it last."""
    stated_at_s: float | None = None
    """When that was, by the environment's time; None where it never stated any."""
    refused_at_s: float | None = None
    """When it refused a round by its own policy, where that is the last that came from it."""
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
    startup: Startup = USUAL_STARTUP
    """What it is expected to spend before its first step."""
    used: tuple[bool, ...] = ()
    """Of its last rounds, whether the update was used; it was not where it was rejected, or the device was silent until
    it was given up. The newest last: its reputation."""
    evaluated: Evaluated | None = None
    """What it last made of the model on the examples that it holds out."""
    evaluated_round: int = 0
    """The round of that evaluation."""
    overhead_s: float | None = None
    """Round trip of its registration less the time that the device took for it."""
    last_problem: str = ""
    """Why its last answer was of no use, for people; empty where it was used."""

    def hear(self, condition: Condition, now_s: float, *, refused: bool = False) -> None:
        """Take what the device states of its condition, in a refusal by its own policy or otherwise."""
        self.stated, self.stated_at_s = condition, now_s
        self.refused_at_s = now_s if refused else None

    def judged(self, used: bool) -> None:
        """Note whether the update of a round was used."""
        self.used = (*self.used, used)[-REMEMBERED:]

    def learn_startup(self, seen: Startup, *, at_least: bool = False) -> None:
        """Take a start-up into account: more counts at once, less by half. With `at_least` it may have been more."""
        if at_least:
            seen = _larger(seen, self.startup)
        self.startup = _larger(seen, _between(self.startup, seen, 0.5))

    def forget_startup(self) -> None:
        """A device that got no plan tells nothing: what it once took is trusted less and less."""
        self.startup = _between(self.startup, USUAL_STARTUP, 0.2)


@dataclass(slots=True)
class Registry:
    """All devices that ever registered, by node."""

    records: dict[int, DeviceRecord] = field(default_factory=dict)

    def register(
        self, node: int, profile: DeviceProfile, examples: int, startup: Startup = USUAL_STARTUP
    ) -> None:
        """Add a device, or take its new profile, number of examples and start-up."""
        if node not in self.records:
            self.records[node] = DeviceRecord(node=node, profile=profile, examples=examples)
        self.records[node].profile = profile
        self.records[node].examples = examples
        self.records[node].startup = startup

    def missing(self, nodes: Iterable[int]) -> list[int]:
        """Those of `nodes` that have not registered."""
        return [node for node in nodes if node not in self.records]

    def label(self, node: int) -> str:
        """What messages call a device: the name in its profile, with the end of its number where others have that name.

        A name comes from outside: what does not print is replaced.
        """
        if node not in self.records:
            return f"an unknown device (node {node})"
        name = self.records[node].profile.name
        shared = any(r.profile.name == name for other, r in self.records.items() if other != node)
        shown = "".join(c if c.isprintable() else "?" for c in name) or "a device"
        return f"{shown}, node {_tail(node)}" if shared or not name.strip() else shown

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


def _tail(node: int) -> str:
    """A node's number; of the long ones that Flower draws, the last digits."""
    digits = str(node)
    return digits if len(digits) <= 6 else f"…{digits[-4:]}"


def _larger(one: Startup, other: Startup) -> Startup:
    return Startup(time_s=max(one.time_s, other.time_s), energy_j=max(one.energy_j, other.energy_j))


def _between(one: Startup, other: Startup, share: float) -> Startup:
    """Between the two, so far on the way to the other; exactly the one where they are equal."""
    return Startup(
        time_s=one.time_s + share * (other.time_s - one.time_s),
        energy_j=one.energy_j + share * (other.energy_j - one.energy_j),
    )
