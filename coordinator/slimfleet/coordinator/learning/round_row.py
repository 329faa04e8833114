"""Sum a closed round up into its row."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from statistics import fmean

from slimfleet.compression import Cost, Evaluation
from slimfleet.coordinator.learning.outcome import RoundRow
from slimfleet.coordinator.receiving.open_round import OpenRound

TRAILING = 5
"""Rounds that an accuracy is averaged over: single rounds swing by several points under label skew."""


def round_row(
    opened: OpenRound,
    *,
    full_bytes: int,
    silent: Sequence[Cost],
    virtual_time_s: float,
    evaluation: Evaluation | None,
    earlier: Sequence[RoundRow],
    size_error: float,
    wall_time_s: float,
) -> RoundRow:
    """The row of one round. `full_bytes` is the plain float32 model, `silent` what unheard devices spent.

    `size_error` is that of the cost model's prediction of uplink bytes.
    """
    reports = [opened.reports[node] for node in sorted(opened.reports)]
    spent = [report.spent for report in reports]
    used = [d.assignment.plan for d in opened.dispatches if d.node in opened.accepted]
    accuracy = None if evaluation is None else evaluation.accuracy
    known = [r.accuracy for r in earlier if r.accuracy is not None] + ([] if accuracy is None else [accuracy])
    radio_j = fsum(cost.radio_j for cost in (*spent, *silent))
    energy_j = fsum(cost.energy_j for cost in (*spent, *silent))
    return RoundRow(
        round=opened.number,
        selected=len(opened.dispatches),
        completed=len(opened.accepted),
        skipped=len(opened.skipped),
        rejected=len(opened.rejected),
        failed=len(opened.failed),
        accuracy=accuracy,
        loss=None if evaluation is None else evaluation.loss,
        trailing_accuracy=fmean(known[-TRAILING:]) if known else None,
        uplink_bytes=sum(opened.received.values()),
        uplink_bytes_float32=full_bytes * len(opened.received),
        downlink_bytes=sum(len(d.payload) for d in opened.dispatches),
        downlink_bytes_float32=full_bytes * len(opened.dispatches),
        energy_j=energy_j,
        compute_j=energy_j - radio_j,
        radio_j=radio_j,
        virtual_time_s=virtual_time_s,
        mean_width=_mean([plan.width for plan in used]),
        mean_nmse=_mean([plan.nmse for plan in used]),
        mean_steps=_mean([opened.reports[node].steps for node in sorted(opened.accepted)]),
        predicted_energy_j=fsum(d.predicted.energy_j for d in opened.dispatches if d.node in opened.reports),
        size_error=size_error,
        violations=sum(len(broken) for broken in opened.violations.values()),
        wall_time_s=wall_time_s,
    )


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else 0.0
