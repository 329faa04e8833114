"""Tables of a comparison: one line a run for programs, one line a point for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from slimfleet.compression.reporting import units
from slimfleet.simulations.sweeps.outcomes import Comparison, Point, Score, Spread, numbers_of, score_of

__all__ = ["broken_budgets", "comparison_csv", "comparison_table", "point_cells"]

Show = Callable[[float | None], str]

COSTS: Sequence[tuple[str, str, Show]] = (
    ("sent by devices", "uplink_bytes", units.data),
    ("sent to devices", "downlink_bytes", units.data),
    ("energy", "energy_j", units.energy),
    ("virtual time", "virtual_time_s", units.duration),
)
"""Heading, key of the summary, and how it is shown."""


def comparison_csv(comparison: Comparison) -> bytes:
    """One line a run, failed ones included: what varies, then every number of its summary; unknown is empty."""
    varied = list(dict.fromkeys(key for point in comparison.points for key in point.varied))
    numbers = {run.name: numbers_of(run.summary) for run in comparison.runs}
    columns = list(dict.fromkeys(key for each in numbers.values() for key in each))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["run", "point", *varied, "problem", *columns])
    for point in comparison.points:
        values = [point.varied.get(key, "") for key in varied]
        for run in point.runs:
            found = numbers[run.name]
            table.writerow([run.name, point.label, *values, "", *(found.get(key, "") for key in columns)])
    for name, problem in comparison.problems.items():
        table.writerow([name, "", *("" for _ in varied), problem, *("" for _ in columns)])
    return text.getvalue().encode()


def comparison_table(comparison: Comparison) -> Group:
    """The points beside each other, means over seeds; then what failed."""
    score = score_of(comparison)
    heads = ("runs", score.words, "sent by devices", "energy")  # what fits into 80 columns
    table = Table(
        title=Text(f"\n{comparison.title}: {comparison.about}"),
        title_style="bold",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        header_style="dim",
    )
    table.add_column("", overflow="fold", min_width=16)
    for head in heads:
        table.add_column(head, justify="right")
    for point in comparison.points:
        cells = point_cells(point, score)
        table.add_row(Text(point.label), *(cells[head] for head in heads))
    lines = [Text(note, style="yellow") for note in (*comparison.notes, *broken_budgets(comparison))]
    lines += [
        Text(f"failed: {name}: {problem}", style="bold red") for name, problem in comparison.problems.items()
    ]
    return Group(table, *lines)


def broken_budgets(comparison: Comparison) -> list[str]:
    """A sentence for each point whose runs broke budgets."""
    found = [(point.label, point.spread("budget_violations")) for point in comparison.points]
    return [f"{label}: {each.mean:.3g} budgets broken a run." for label, each in found if each and each.mean]


def point_cells(point: Point, score: Score) -> dict[str, str]:
    """Heading -> what stands below it for a point. ± is the standard deviation over seeds: points of an accuracy, a
    share of the mean for all else."""
    return {
        "runs": units.count(len(point.runs)),
        score.words: _accuracy(point.spread(score.key))
        if score.is_accuracy
        else _cost(point.spread(score.key), _plain),
        **{head: _cost(point.spread(key), show) for head, key, show in COSTS},
    }


def _accuracy(spread: Spread | None) -> str:
    if spread is None:
        return units.UNKNOWN
    within = "" if spread.deviation is None else f" ± {100 * spread.deviation:.1f}"
    return f"{100 * spread.mean:.1f}{within} %"


def _cost(spread: Spread | None, show: Show) -> str:
    if spread is None:
        return units.UNKNOWN
    share = spread.share
    return show(spread.mean) + ("" if share is None else f" ± {100 * share:.{0 if share >= 0.1 else 1}f} %")


def _plain(value: float | None) -> str:
    return units.UNKNOWN if value is None else f"{value:.4g}"
