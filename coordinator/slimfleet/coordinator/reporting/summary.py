"""`summary.json`: the numbers of a run, and what it cost to reach the accuracy of plain federated averaging."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from math import fsum, isfinite
from typing import Any

from slimfleet.coordinator.learning.row import TRAILING, RoundRow
from slimfleet.coordinator.reporting.outcome import RunRecord, named

__all__ = ["COSTS", "accuracy_last5", "cost_to_reach", "final_accuracy", "summarise", "total"]

COSTS = ("uplink_bytes", "downlink_bytes", "energy_j", "compute_j", "radio_j", "virtual_time_s")
"""What a run costs: fields of `RoundRow` that add up over rounds."""

LEVELS = (0.8, 0.9)
"""Accuracies that are compared beside the baseline's final one, which it may reach only with its last round."""


def summarise(record: RunRecord, baseline: RunRecord | None = None) -> dict[str, Any]:
    """The run in plain JSON values; numbers that are not known or not finite are None.

    With `baseline`, the same fields of that run stand under `baseline`. Both then have `to_target`: the cost
    up to the first round whose trailing accuracy reaches the baseline's final one, None where it never does.
    `savings` holds the baseline's cost over this run's, for each of those costs. `reach` has the same for lower
    accuracies, `LEVELS`.
    """
    summary = _totals(record)
    if baseline is None:
        return summary
    target = accuracy_last5(baseline.rows)
    ours, theirs, savings = _compared(record, baseline, _finite(target))
    summary["baseline"] = {**_totals(baseline), "to_target": theirs}
    summary["to_target"], summary["savings"] = ours, savings
    summary["reach"] = [
        {"to_target": ours, "baseline": {"to_target": theirs}, "savings": savings}
        for ours, theirs, savings in (_compared(record, baseline, level) for level in LEVELS)
    ]
    return summary


def cost_to_reach(rows: Sequence[RoundRow], target: float | None) -> dict[str, float | int | None]:
    """Rounds and costs up to the first round whose trailing accuracy reaches `target`, None where none does.

    An average over fewer than `TRAILING` evaluated rounds counts only if the whole run has no more.
    """
    reached = None if target is None else _first_reaching(rows, target)
    if reached is None:
        return {"accuracy": target, "rounds": None, **dict.fromkeys(COSTS)}
    until = rows[: reached + 1]
    return {"accuracy": target, "rounds": len(until), **{cost: total(until, cost) for cost in COSTS}}


def total(rows: Sequence[RoundRow], field: str) -> Any:
    """The sum of a numeric field over rounds."""
    return sum(getattr(row, field) for row in rows)


def final_accuracy(rows: Sequence[RoundRow]) -> float | None:
    """Accuracy of the last evaluated round; None where none was."""
    return next((row.accuracy for row in reversed(rows) if row.accuracy is not None), None)


def accuracy_last5(rows: Sequence[RoundRow]) -> float | None:
    """Mean accuracy of the last five evaluated rounds, of all where there are fewer; None where none was."""
    return rows[-1].trailing_accuracy if rows else None


def _compared(
    record: RunRecord, baseline: RunRecord, target: float | None
) -> tuple[dict[str, Any], dict[str, Any], dict[str, float | None]]:
    """Cost to reach the target of both runs, and how many times less the first needed."""
    ours, theirs = cost_to_reach(record.rows, target), cost_to_reach(baseline.rows, target)
    return ours, theirs, {cost: _ratio(theirs[cost], ours[cost]) for cost in ("rounds", *COSTS)}


def _first_reaching(rows: Sequence[RoundRow], target: float) -> int | None:
    """Index of the first round with a full trailing window that reaches the target."""
    evaluated = [index for index, row in enumerate(rows) if row.accuracy is not None]
    first_full = min(TRAILING, len(evaluated)) - 1
    for index in islice(evaluated, max(first_full, 0), None):
        trailing = rows[index].trailing_accuracy
        if trailing is not None and trailing >= target:
            return index
    return None


def _totals(record: RunRecord) -> dict[str, Any]:
    rows = record.rows
    known_losses = [row.loss for row in rows if row.loss is not None]
    return {
        "scenario": record.scenario,
        "seed": record.seed,
        "backend": record.backend,
        "rounds": len(rows),
        "devices": record.devices,
        "participations": total(rows, "completed"),
        "accuracy": _finite(final_accuracy(rows)),
        "accuracy_last5": _finite(accuracy_last5(rows)),
        "accuracy_from": "server" if record.has_test_data else "devices",
        "best": None if record.best is None else asdict(record.best),
        "device_evaluation": record.evaluation,
        "evaluation_share": max((row.evaluation_share for row in rows), default=0.0),
        "loss": _finite(known_losses[-1] if known_losses else None),
        "uplink_bytes": total(rows, "uplink_bytes"),
        "uplink_bytes_float32": total(rows, "uplink_bytes_float32"),
        "downlink_bytes": total(rows, "downlink_bytes"),
        "downlink_bytes_float32": total(rows, "downlink_bytes_float32"),
        "energy_j": _finite(total(rows, "energy_j")),
        "compute_j": _finite(total(rows, "compute_j")),
        "radio_j": _finite(total(rows, "radio_j")),
        "predicted_energy_j": _finite(total(rows, "predicted_energy_j")),
        "update_size_error": _finite(rows[-1].size_error if rows else None),
        "energy_source": record.energy_source,
        "energy_by_phase": _by_phase(record),
        "virtual_time_s": _finite(total(rows, "virtual_time_s")),
        "wall_time_s": _finite(total(rows, "wall_time_s")),
        "budget_violations": sum(record.violations.values()),
        "violations": dict(record.violations),
        "skipped": dict(record.skipped),
        "rejected": dict(record.rejected),
        "failed": dict(record.failed),
        "outcomes": dict(record.outcomes),
        "rounds_not_applied": sum(not row.applied for row in rows),
    }


def _by_phase(record: RunRecord) -> dict[str, dict[str, Any]]:
    """Seconds and joules of each phase, how far the joules may be off, and where they come from.

    The joules sum to the run's: `unreported` holds those of devices that were lost, or that tell no phases.
    """
    phases: dict[str, dict[str, Any]] = {
        name: {
            "energy_j": _finite(phase.energy_j),
            "uncertainty_j": _finite(phase.uncertainty_j),
            "time_s": _finite(phase.time_s),
            "source": named(phase.sources),
        }
        for name, phase in record.phases.items()
    }
    overall_j = total(record.rows, "energy_j")
    rest_j = overall_j - fsum(phase.energy_j for phase in record.phases.values())
    # What is left of a sum in another order is no energy.
    phases["unreported"] = {"energy_j": _finite(0.0 if abs(rest_j) <= 1e-9 * overall_j else rest_j)}
    return phases


def _finite(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None


def _ratio(theirs: float | int | None, ours: float | int | None) -> float | None:
    return None if theirs is None or not ours else theirs / ours
