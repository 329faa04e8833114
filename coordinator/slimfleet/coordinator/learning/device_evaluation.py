"""Evaluation on devices: their counts added up, and how evenly the model serves them.

A device evaluates the model that it receives, before it trains: the counts of a round are about the model that the
round before it made, as it was sent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import fmean, pstdev
from typing import Any

from slimfleet.compression.held_out import pooled
from slimfleet.compression.types import Evaluated
from slimfleet.coordinator.receiving.answer import Answer
from slimfleet.coordinator.record import DeviceRecord

__all__ = ["Fairness", "evaluated_of", "fairness_of", "table_of"]

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
    classes: dict[str, list[Evaluated]] = defaultdict(list)
    for device_class, part in recent:
        classes[device_class].append(part)
    by_device_class = {name: pooled(classes[name]) for name in sorted(classes)}
    fairness = fairness_of([part for _, part in recent])
    return {
        "devices": len(recent),
        **_shown(overall),
        "by_class": {
            str(number): {"examples": examples, "correct": correct}
            for number, (examples, correct) in enumerate(overall.by_class or ())
            if examples
        },
        "by_device_class": {
            name: {"devices": len(classes[name]), **_shown(part)}
            for name, part in by_device_class.items()
            if part is not None
        },
        "fairness": None
        if fairness is None
        else {"mean": fairness.mean, "worst_decile": fairness.worst_decile, "spread": fairness.spread},
    }


def _shown(part: Evaluated) -> dict[str, Any]:
    return {
        "examples": part.examples,
        "correct": part.correct,
        "accuracy": part.accuracy,
        "loss": part.loss,
    }
