"""Answers: one device's part of a round as one value, judged before anything of it is used."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal, get_args

from slimfleet.compression import Condition, PayloadError, Report, Tensors
from slimfleet.compression.messages import Spent, parse
from slimfleet.coordinator.receiving.bounds import FleetBounds
from slimfleet.coordinator.receiving.checks import (
    Norms,
    broken_constraints,
    check_norms,
    check_report,
    check_variances,
    decoded_update,
    is_over,
    is_plausible,
    norms_of,
)
from slimfleet.coordinator.receiving.transfers import RoundTrip, timed
from slimfleet.coordinator.sending.dispatch import Dispatch

log = logging.getLogger(__name__)

Verdict = Literal["accepted", "rejected", "failed"]
"""The update is used; it arrived and is not used; or nothing usable arrived."""

Outcome = Literal["done", "dropped", "rejected", "late", "stale", "refused"]
"""How a device's part of a round ended: every dispatch comes to exactly one."""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

DROPPED = frozenset({"dropout", "timeout", "worker", "error", "incomplete", "too_few"})
"""Reasons for which nothing was used although the device did not refuse; no device can state them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Outcome of one dispatch."""

    dispatch: Dispatch | None
    """None where nothing was in flight under the answer's number: a replay, or an unknown device."""
    verdict: Verdict
    reason: str = ""
    """Why it was not accepted, in one word of a bounded set."""
    message: str = ""
    """The same for people."""
    report: Report | None = None
    """Where it was credible, whatever became of the update."""
    spent: Spent | None = None
    """What a device that refused says that it had spent."""
    received_bytes: int | None = None
    """Size of the payload; None where none came."""
    broken: tuple[str, ...] = ()
    """Constraints of the budget that the spent cost exceeds; `evaluation_j` is the limit on evaluating."""
    norms: Norms | None = None
    """Of the update, where it could be decoded, whether or not it is used."""
    staleness: int = 0
    """Steps since the device was given its model, where the update is used."""

    @property
    def outcome(self) -> Outcome:
        """How the device's part ended."""
        if self.verdict != "failed":
            return "done" if self.verdict == "accepted" else "rejected"
        if self.reason in DROPPED:
            return "dropped"
        words: dict[str, Outcome] = {"late": "late", "outdated": "stale"}
        return words.get(self.reason, "refused")

    @property
    def condition(self) -> Condition | None:
        """What the device states of its condition; None where it states nothing that is credible."""
        said = self.report or self.spent
        return None if said is None else said.condition


@dataclass(frozen=True, slots=True)
class Arrived:
    """What came from a device."""

    payload: bytes
    said: str | Report
    """The report, as text or parsed already."""
    update: Tensors | None = None
    """The payload decoded, where it was encoded in this process; decoded here otherwise."""
    norms: Norms | None = None
    """Of `update`, where they are known."""


REPLAY = Answer(
    dispatch=None, verdict="rejected", reason="replay", message="nothing is in flight under its number"
)


def failed(dispatch: Dispatch, reason: str, message: str, spent: Spent | None = None) -> Answer:
    """The answer of a device that refused, was lost or stayed silent. What no device can have spent is left out."""
    if spent is not None and not is_plausible(spent.cost, spent.startup):
        spent = None
    return Answer(dispatch=dispatch, verdict="failed", reason=reason, message=message, spent=spent)


def judged(
    dispatch: Dispatch,
    arrived: Arrived,
    bounds: FleetBounds,
    model: Tensors,
    trip: RoundTrip | None,
) -> tuple[Answer, Tensors | None]:
    """Check what came for `dispatch`. Returns the answer, and the decoded update where it is acceptable.

    `model` is the global model (full shapes) that the update moves; `trip` times the transfers, None in virtual time.
    Nothing that a device sends makes this raise.
    """
    size, said = len(arrived.payload), arrived.said
    report: Report | None = None
    broken: tuple[str, ...] = ()
    norms: Norms | None = None

    def answer(verdict: Verdict, reason: str = "", message: str = "") -> Answer:
        return Answer(
            dispatch=dispatch,
            verdict=verdict,
            reason=reason,
            message=message,
            report=report,
            received_bytes=size,
            broken=broken,
            norms=norms,
        )

    try:
        parsed = said if isinstance(said, Report) else parse(Report, said)
        check_report(parsed, dispatch.assignment, uplink_bytes=size, downlink_bytes=len(dispatch.payload))
        parsed = parsed if trip is None else timed(parsed, trip)
        report, broken = parsed, tuple(broken_constraints(parsed.spent, dispatch.limits))
        if is_over(parsed.phases, dispatch.assignment.evaluation):
            broken += ("evaluation_j",)
        deadline_s = dispatch.assignment.budget.deadline_s
        if deadline_s is not None and parsed.spent.time_s > deadline_s:
            return answer("failed", "late", f"done after {parsed.spent.time_s:.4g} s"), None
        index_map = dispatch.update_map
        update = arrived.update
        if update is None:
            update = decoded_update(arrived.payload, dispatch.assignment, index_map.schema)
        norms = arrived.norms or norms_of(update, index_map.schema)
        check_norms(norms, bounds.largest)
        check_variances(update, index_map, model)
        return answer("accepted"), update
    except PayloadError as error:
        return answer("rejected", error.reason, str(error)), None
    except Exception as error:
        # A check that fails is a fault of ours, and still no reason to end the round for the other devices.
        log.exception("the answer of node %d could not be judged", dispatch.node)
        return answer("rejected", "error", f"it could not be judged: {type(error).__name__}"), None
