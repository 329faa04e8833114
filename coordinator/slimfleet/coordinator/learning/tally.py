"""What rounds add up to: for the run by reason, for each device in its record."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from slimfleet.coordinator.receiving.open_round import OpenRound
from slimfleet.coordinator.registry import Registry
from slimfleet.coordinator.sending.holding import NOTHING


@dataclass
class Totals:
    """How often each thing happened over the run."""

    skipped: Counter[str] = field(default_factory=Counter)
    """Constraint that bound -> devices without a plan."""
    rejected: Counter[str] = field(default_factory=Counter)
    """Reason -> updates not used."""
    failed: Counter[str] = field(default_factory=Counter)
    """Reason -> devices that gave no usable answer."""
    violations: Counter[str] = field(default_factory=Counter)
    """Constraint -> times that a spent cost broke it."""

    def add(self, opened: OpenRound) -> None:
        """Count a closed round."""
        for counter, counts in zip((self.skipped, self.rejected, self.failed), opened.counts(), strict=True):
            counter.update(counts)
        for broken in opened.violations.values():
            self.violations.update(broken)

    def to_json(self) -> dict[str, dict[str, int]]:
        """Plain values for a checkpoint."""
        return {name: dict(getattr(self, name)) for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, values: dict[str, dict[str, int]]) -> Totals:
        """Undo `to_json`."""
        return cls(**{name: Counter(counts) for name, counts in values.items()})


def note_in_records(opened: OpenRound, registry: Registry) -> None:
    """Add a closed round to the records of the devices that it touched."""
    for node in opened.skipped:
        registry[node].skips += 1
    for dispatch in opened.dispatches:
        node = dispatch.node
        record = registry[node]
        record.downlink_bytes += len(dispatch.payload)
        record.uplink_bytes += opened.received.get(node, 0)
        record.rejections += node in opened.rejected
        record.failures += node in opened.failed
        record.violations += len(opened.violations.get(node, ()))
        if node in opened.accepted:
            record.acknowledged_round = opened.number
            record.participations += 1
            record.width_sum += dispatch.assignment.plan.width
        if opened.failed.get(node) == "stale":
            record.holding = NOTHING
        report = opened.reports.get(node)
        if report is not None:
            # Whatever became of its update: nobody has trained a model without decoding it.
            record.holding = dispatch.holding_after if dispatch.holding_after != NOTHING else record.holding
            record.energy_j += report.spent.energy_j
            record.time_s += report.spent.time_s
