"""A round under way: take answers in any order, use the good ones, name the bad ones, go on."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from slimfleet.compression import PayloadError, Report, Skip
from slimfleet.compression.messages import parse
from slimfleet.coordinator.aggregate import CoverageMean
from slimfleet.coordinator.checks import LARGEST_EXAMPLES, broken_constraints, checked_update
from slimfleet.coordinator.dispatch import Dispatch

log = logging.getLogger(__name__)


@dataclass
class OpenRound:
    """What a round sent out and what has come back. Only the sums grow with the model; reports are small."""

    number: int
    dispatches: Sequence[Dispatch]
    skipped: dict[int, Skip]
    mean: CoverageMean
    max_norm: float
    reports: dict[int, Report] = field(default_factory=dict)
    """Reports that could be read, of accepted and of rejected updates."""
    accepted: set[int] = field(default_factory=set)
    rejected: dict[int, str] = field(default_factory=dict)
    """Node -> reason why its update was not used."""
    failed: dict[int, str] = field(default_factory=dict)
    """Node -> why nothing usable came: a refusal, an error, late, silent."""
    violations: dict[int, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._waiting = {d.node: d for d in self.dispatches}

    def receive(self, node: int, payload: bytes, report_text: str) -> None:
        """Check one answer and add it. A bad one is counted and named; the round goes on."""
        dispatch = self._take(node)
        if dispatch is None:
            return
        try:
            report = parse(Report, report_text)
            self.reports[node] = report
            self._judge(dispatch, report)
            if node in self.failed:
                return
            assignment = dispatch.assignment
            update = checked_update(
                payload,
                report,
                round_number=self.number,
                plan_id=assignment.plan_id,
                plan=assignment.plan,
                budget=assignment.budget,
                schema=dispatch.places.schema,
                max_norm=self.max_norm,
            )
            self.mean.add(update, dispatch.places, min(report.examples, LARGEST_EXAMPLES))
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
            self.failed[node] = reason
            log.info("round %d: node %d failed (%s): %s", self.number, node, reason, message)

    def close(self, reason: str = "timeout") -> None:
        """Count every device still silent under `reason`."""
        for node in sorted(self._waiting):
            self.fail(node, reason)

    @property
    def waiting(self) -> int:
        """How many answers are still out."""
        return len(self._waiting)

    def counts(self) -> tuple[Counter[str], Counter[str], Counter[str]]:
        """(skipped, rejected, failed), each reason -> devices."""
        skipped = Counter(skip.constraint for skip in self.skipped.values())
        return skipped, Counter(self.rejected.values()), Counter(self.failed.values())

    def _take(self, node: int) -> Dispatch | None:
        dispatch = self._waiting.pop(node, None)
        if dispatch is None:
            log.warning("round %d: ignored a second or unasked answer of node %d", self.number, node)
        return dispatch

    def _judge(self, dispatch: Dispatch, report: Report) -> None:
        """Note broken budgets; an answer after the deadline is not used."""
        broken = broken_constraints(report.spent, dispatch.limits)
        if broken:
            self.violations[dispatch.node] = broken
        deadline_s = dispatch.assignment.budget.deadline_s
        if deadline_s is not None and report.spent.time_s > deadline_s:
            self.failed[dispatch.node] = "late"
