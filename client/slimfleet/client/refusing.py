"""Refusing: the errors by which a device does not do a round, and how they and a round are told, over any transport."""

from __future__ import annotations

from slimfleet.compression import (
    Assignment,
    BadInput,
    BudgetExceeded,
    Payload,
    PayloadError,
    PolicyRefusal,
    Report,
)

__all__ = ["LONGEST_MESSAGE", "REFUSALS", "Refusal", "reason_of", "round_line"]

LONGEST_MESSAGE = 500

Refusal = BadInput | BudgetExceeded | PayloadError | PolicyRefusal
REFUSALS: tuple[type[Refusal], ...] = (BudgetExceeded, PayloadError, PolicyRefusal)


def reason_of(refusal: Refusal) -> str:
    """The one word that the coordinator counts a refusal by."""
    if isinstance(refusal, BadInput):
        return "refused"
    return refusal.constraint if isinstance(refusal, BudgetExceeded) else refusal.reason


def round_line(assignment: Assignment, payload: Payload, report: Report) -> str:
    """A round that was done, in one line for its device's log."""
    spent = report.spent
    phases = [
        f"{name} {cost.energy_j:.3g} J in {cost.time_s:.3g} s"
        for name, cost in report.phases or ()
        if cost.time_s
    ]
    phases += [
        f"paused {pause.times} times for {pause.reason}, {pause.time_s:.3g} s"
        for pause in report.pauses or ()
    ]
    gross = "" if report.gross_j is None else f" of {report.gross_j:.3g} J gross"
    early = f" (stopped by {report.stopped_by})" if report.stopped_by else ""
    return (
        f"{report.steps} of {assignment.plan.local_steps} steps{early}, loss {report.loss:.4g}, "
        f"{len(payload):,} bytes up, {spent.energy_j:.3g} J ({report.source}){gross} in {spent.time_s:.3g} s: "
        + ", ".join(phases)
    )
