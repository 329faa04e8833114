"""Evaluation on devices: their counts added up, and how evenly the model serves them.

A device evaluates the model that it receives, before it trains: the counts of a round are about the model that the
round before it made, as it was sent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from statistics import fmean, pstdev
from typing import Any

from slimfleet.compression.held_out import pooled
from slimfleet.compression.types import Evaluated, Report
from slimfleet.coordinator.receiving.answer import Answer
from slimfleet.coordinator.registry import DeviceRecord

__all__ = ["Fairness", "evaluated_of", "evaluation_share", "fairness_of", "pooled_by_class", "table_of"]

RECENT = 5
"""Rounds whose evaluations a table is made of: one round's devices hold out few examples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fairness:
    """Accuracy as single devices see it, each with one vote."""

    mean: float
    worst_decile: float
    """Mean over the tenth of the devices that are served worst, at least one."""
    spread: float
    """Standard deviation."""


def evaluated_of(answers: Iterable[Answer]) -> list[Evaluated]:
    """What the devices report whose updates are used."""
    reports = [answer.report for answer in answers if answer.verdict == "accepted"]
    return [report.evaluated for report in reports if report is not None and report.evaluated is not None]


def pooled_by_class(parts: Iterable[tuple[str, Evaluated]]) -> dict[str, Evaluated]:
    """What all devices of a class found together, by class of devices in order of name, from pairs of the two."""
    classes: dict[str, list[Evaluated]] = defaultdict(list)
    for device_class, part in parts:
        classes[device_class].append(part)
    found = {name: pooled(classes[name]) for name in sorted(classes)}
    return {name: part for name, part in found.items() if part is not None}


def evaluation_share(reports: Iterable[Report]) -> float:
    """The largest share of its joules that one device spent on evaluating, 0..1, of those that tell phases."""
    shares = (
        report.phases.evaluate.energy_j / report.spent.energy_j
        for report in reports
        if report.phases is not None and report.spent.energy_j > 0
    )
    return max(shares, default=0.0)


def fairness_of(parts: Sequence[Evaluated]) -> Fairness | None:
    """How evenly devices are served; None where no accuracy is known."""
    known = sorted(part.accuracy for part in parts if part.accuracy is not None)
    if not known:
        return None
    worst = known[: ceil(len(known) / 10)]
    return Fairness(mean=fmean(known), worst_decile=fmean(worst), spread=pstdev(known))


def table_of(records: Iterable[DeviceRecord], last_round: int) -> dict[str, Any] | None:
    """The last evaluation of every device that made one in the last rounds: overall, by class of answers and by class
    of devices, in plain values. None where there is none."""
    recent = [
        (record.profile.device_class, record.evaluated)
        for record in records
        if record.evaluated is not None and record.evaluated_round > last_round - RECENT
    ]
    overall = pooled(part for _, part in recent)
    if overall is None:
        return None
    parts = [part for _, part in recent]
    of_class = {name: [part for its, part in recent if its == name] for name, _ in recent}
    return {
        **_shown(overall, parts),
        "by_class": {
            str(number): {"examples": examples, "correct": correct}
            for number, (examples, correct) in enumerate(overall.by_class or ())
            if examples
        },
        "by_device_class": {
            name: _shown(together, of_class[name]) for name, together in pooled_by_class(recent).items()
        },
    }


def _shown(together: Evaluated, parts: Sequence[Evaluated]) -> dict[str, Any]:
    """What devices found together, and how evenly they are served, from what each found."""
    fairness = fairness_of(parts)
    return {
        "devices": len(parts),
        "examples": together.examples,
        "correct": together.correct,
        "accuracy": together.accuracy,
        "loss": together.loss,
        "fairness": None if fairness is None else asdict(fairness),
    }
