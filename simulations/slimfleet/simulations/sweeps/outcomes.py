"""Outcomes of runs beside each other: the numbers of each, and their means and spreads over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

__all__ = ["Comparison", "Finished", "Point", "Score", "Spread", "numbers_of", "scale_notes", "score_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """One finished run."""

    name: str
    folder: Path
    summary: Mapping[str, Any]
    """Of its `summary.json`."""
    rounds: Sequence[Mapping[str, float | None]] = ()
    """The numbers of its `rounds.csv`, round by round."""
    report: str = ""
    """Where its own page is, from the folder of the comparison."""

    @property
    def seed(self) -> int:
        """Of the run."""
        return int(self.summary["seed"])


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean over seeds, and the sample standard deviation; None of that from one seed."""

    mean: float
    deviation: float | None

    @property
    def share(self) -> float | None:
        """The deviation as a share of the mean."""
        return None if self.deviation is None or not self.mean else self.deviation / abs(self.mean)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Runs that differ in nothing but the seed."""

    label: str
    settings: Mapping[str, Any]
    """Dotted key -> value of all that makes it differ from other points."""
    varied: Mapping[str, Any]
    """What of that is varied one by one: keys of a grid, and the name of a variant."""
    runs: tuple[Finished, ...]

    def spread(self, key: str) -> Spread | None:
        """Of a number of the summaries, by its dotted key; None where no run has it."""
        found = [numbers_of(run.summary).get(key) for run in self.runs]
        known = [value for value in found if value is not None]
        if not known:
            return None
        return Spread(fmean(known), stdev(known) if len(known) > 1 else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Points beside each other, and what must be known before they are believed."""

    title: str
    about: str
    """What was compared, in one sentence."""
    points: tuple[Point, ...]
    problems: Mapping[str, str] = field(default_factory=dict)
    """Run -> why it failed."""
    notes: tuple[str, ...] = ()
    source: str = ""
    """The file that asked for it."""

    @property
    def runs(self) -> list[Finished]:
        """All of them, point by point."""
        return [run for point in self.points for run in point.runs]


@dataclass(frozen=True, slots=True)
class Score:
    """What runs are judged by."""

    key: str
    words: str
    is_accuracy: bool

    def error_of(self, mean: float) -> float:
        """The smaller, the better."""
        return 1 - mean if self.is_accuracy else mean


def score_of(comparison: Comparison) -> Score:
    """The accuracy of the last five rounds, or the loss where one of the runs has no accuracy."""
    if all(run.summary["accuracy_last5"] is not None for run in comparison.runs):
        return Score("accuracy_last5", "accuracy", True)
    return Score("loss", "loss", False)


def numbers_of(summary: Mapping[str, Any], at: str = "") -> dict[str, float | int]:
    """Every finite number of a summary, by its dotted key."""
    return dict(_numbers(summary, at))


def _numbers(values: Mapping[str, Any], at: str) -> Iterator[tuple[str, float | int]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{at}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
            yield f"{at}{key}", value


def scale_notes(points: Sequence[Point]) -> tuple[str, ...]:
    """A sentence for each size in which the points' runs differ: totals grow with it."""
    notes = []
    for key in ("rounds", "devices"):
        sizes = {point.label: sorted({int(run.summary[key]) for run in point.runs}) for point in points}
        said = {label: " and ".join(map(str, found)) for label, found in sizes.items() if found}
        if len(set(said.values())) > 1:
            each = "; ".join(f"{label}: {found}" for label, found in said.items())
            notes.append(f"The points differ in {key} ({each}): their totals are not of the same work.")
    return tuple(notes)
