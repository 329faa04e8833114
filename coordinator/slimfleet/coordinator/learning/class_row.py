"""Class rows: one device class in one round, in few numbers, however many devices it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from slimfleet.coordinator.quantile import nearest_rank
from slimfleet.coordinator.receiving.answer import Answer

__all__ = ["ClassRow", "class_rows"]

LOW, MEDIAN, HIGH = 0.1, 0.5, 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRow:
    """The devices of one class whose work ended in a round.

    `low`, `median` and `high` are the quantiles 0.1, 0.5 and 0.9 of the devices that reported; None where nobody did.
    """

    device_class: str
    ended: int
    """Parts of rounds that ended, however."""
    used: int
    """Of them with an update in the model."""
    mean_width: float | None = None
    """Of the updates used."""
    mean_nmse: float | None = None
    """Squared error that the plans of the updates used allowed, as a share of their squared norms."""
    energy_j_median: float | None = None
    energy_j_high: float | None = None
    time_s_median: float | None = None
    time_s_high: float | None = None
    battery_low: float | None = None
    """State of charge, 0..1, as reported at the end of the work; without devices on mains."""
    battery_median: float | None = None
    battery_high: float | None = None


def class_rows(answers: Sequence[Answer], class_of: Callable[[int], str]) -> tuple[ClassRow, ...]:
    """A row for each class that has an answer to one of its dispatches, in order of name; `class_of` takes a node."""
    groups: dict[str, list[Answer]] = {}
    for answer in answers:
        if answer.dispatch is not None:
            groups.setdefault(class_of(answer.dispatch.node), []).append(answer)
    return tuple(_row(name, groups[name]) for name in sorted(groups))


def _row(name: str, answers: Sequence[Answer]) -> ClassRow:
    reports = [answer.report for answer in answers if answer.report is not None]
    plans = [
        a.dispatch.assignment.plan for a in answers if a.verdict == "accepted" and a.dispatch is not None
    ]
    energies_j, times_s = [r.spent.energy_j for r in reports], [r.spent.time_s for r in reports]
    batteries = [r.condition.battery for r in reports if r.condition.battery is not None]
    return ClassRow(
        device_class=name,
        ended=len(answers),
        used=len(plans),
        mean_width=fmean(plan.width for plan in plans) if plans else None,
        mean_nmse=fmean(plan.nmse for plan in plans) if plans else None,
        energy_j_median=_quantile(energies_j, MEDIAN),
        energy_j_high=_quantile(energies_j, HIGH),
        time_s_median=_quantile(times_s, MEDIAN),
        time_s_high=_quantile(times_s, HIGH),
        battery_low=_quantile(batteries, LOW),
        battery_median=_quantile(batteries, MEDIAN),
        battery_high=_quantile(batteries, HIGH),
    )


def _quantile(values: Sequence[float], share: float) -> float | None:
    return nearest_rank(values, share) if values else None
