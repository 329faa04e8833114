"""A round under way: take answers in any order, use the good ones, name the bad ones, go on."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from slimfleet.compression import PayloadError, Report, Skip
from slimfleet.compression.messages import parse
from slimfleet.coordinator.learning.aggregate import CoverageMean
from slimfleet.coordinator.receiving.checks import (
    LARGEST_EXAMPLES,
    broken_constraints,
    check_report,
    checked_update,
)
from slimfleet.coordinator.sending.dispatch import Dispatch

log = logging.getLogger(__name__)


@dataclass
class OpenRound:
    """What a round sent out and what has come back. Only the sums grow with the model; reports are small."""

    number: int
    dispatches: Sequence[Dispatch]
    skipped: dict[int, Skip]
    mean: CoverageMean
    max_norm: float
    opened_at: float = 0.0
    """By the coordinator's stopwatch."""
    opened_s: float = 0.0
    """By the environment's time."""
    reports: dict[int, Report] = field(default_factory=dict)
    """Credible reports, of accepted, rejected and late updates."""
    received: dict[int, int] = field(default_factory=dict)
    """Node -> bytes of the payload that came, whatever became of it."""
    accepted: set[int] = field(default_factory=set)
    rejected: dict[int, str] = field(default_factory=dict)
    """Node -> reason why its update was not used."""
    failed: dict[int, str] = field(default_factory=dict)
    """Node -> why nothing usable came: a refusal, an error, late, silent."""
    violations: dict[int, list[str]] = field(default_factory=dict)
    """Node -> constraints that its spent cost broke."""
    surplus: int = 0
    """Answers that came twice or were not asked for; not used, and no harm to the first."""

    def __post_init__(self) -> None:
        self._waiting = {d.node: d for d in self.dispatches}

    def receive(self, node: int, payload: bytes, report_text: str) -> None:
        """Check one answer and add it. A bad one is counted and named; the round goes on."""
        dispatch = self._take(node)
        if dispatch is None:
            return
        self.received[node] = len(payload)
        try:
            report = self._report(dispatch, len(payload), report_text)
            if _late(dispatch, report):
                self._count_failed(node, "late", f"done after {report.spent.time_s:.4g} s")
                return
            update = checked_update(payload, dispatch.assignment, dispatch.index_map.schema, self.max_norm)
            self.mean.add(update, dispatch.index_map, min(report.examples, LARGEST_EXAMPLES))
        except PayloadError as error:
            self.rejected[node] = error.reason
            log.warning(
                "round %d: update of node %d rejected (%s): %s", self.number, node, error.reason, error
            )
        else:
            self.accepted.add(node)

    def fail(self, node: int, reason: str, message: str = "") -> None:
        """A device answered that it could not, or its transport failed."""
        if self._take(node) is not None:
            self._count_failed(node, reason, message)

    def close(self, reason: str = "timeout") -> None:
        """Count every device still silent under `reason`."""
        for node in sorted(self._waiting):
            self.fail(node, reason)

    @property
    def waiting(self) -> int:
        """How many answers are still out."""
        return len(self._waiting)

    def counts(self) -> tuple[Counter[str], Counter[str], Counter[str]]:
        """(skipped, rejected, failed), each reason -> how often. A second answer is rejected as a replay."""
        skipped = Counter(skip.constraint for skip in self.skipped.values())
        rejected = Counter(self.rejected.values()) + Counter(replay=self.surplus)
        return skipped, rejected, Counter(self.failed.values())

    def _take(self, node: int) -> Dispatch | None:
        dispatch = self._waiting.pop(node, None)
        if dispatch is None:
            self.surplus += 1
            log.warning("round %d: node %d answered twice or unasked, rejected (replay)", self.number, node)
        return dispatch

    def _count_failed(self, node: int, reason: str, message: str) -> None:
        self.failed[node] = reason
        log.info("round %d: node %d failed (%s): %s", self.number, node, reason, message)

    def _report(self, dispatch: Dispatch, uplink_bytes: int, text: str) -> Report:
        """Read a report, keep it if it is credible, and note the budgets that were broken."""
        report = parse(Report, text)
        check_report(
            report, dispatch.assignment, uplink_bytes=uplink_bytes, downlink_bytes=len(dispatch.payload)
        )
        self.reports[dispatch.node] = report
        broken = broken_constraints(report.spent, dispatch.limits)
        if broken:
            self.violations[dispatch.node] = broken
        return report


def _late(dispatch: Dispatch, report: Report) -> bool:
    """Whether the device took longer than it was told to."""
    deadline_s = dispatch.assignment.budget.deadline_s
    return deadline_s is not None and report.spent.time_s > deadline_s
