"""Plots of a comparison: what accuracy cost, point by point, and how it came round by round."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from slimfleet.compression.model.evaluation.pareto import front_of
from slimfleet.compression.reporting import figure as look
from slimfleet.compression.reporting import units
from slimfleet.compression.reporting.figure import styled, svg
from slimfleet.simulations.sweeps.outcomes import Comparison, Score, Spread, score_of

__all__ = ["COSTS", "numeric_keys", "panels_of"]

WIDTH_IN, HEIGHT_IN = 3.6, 2.9
COSTS: Mapping[str, tuple[str, Any]] = {
    "uplink_bytes": ("bytes sent", units.data),
    "downlink_bytes": ("bytes received", units.data),
    "energy_j": ("joules spent", units.energy),
    "virtual_time_s": ("virtual time", units.duration),
}
MOST_CURVES = 10


def panels_of(comparison: Comparison) -> dict[str, str]:
    """The plots as SVG, by name: one for each cost, and `rounds`."""
    score = score_of(comparison)
    panels = {}
    with styled():
        for cost in COSTS:
            figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN))
            _by_cost(figure.add_subplot(), comparison, score, cost)
            panels[cost] = svg(figure, cost)
        figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN))
        _by_round(figure.add_subplot(), comparison, score)
        panels["rounds"] = svg(figure, "rounds")
        for number, key in enumerate(numeric_keys(comparison)):
            figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN))
            _by_setting(figure.add_subplot(), comparison, score, key)
            panels[key] = svg(figure, f"setting-{number}")
    return panels


def numeric_keys(comparison: Comparison) -> list[str]:
    """Varied keys that have two or more values, all of them numbers."""
    values: dict[str, list[Any]] = {}
    for point in comparison.points:
        for key, value in point.varied.items():
            values.setdefault(key, []).append(value)
    return [
        key
        for key, found in values.items()
        if len(set(map(repr, found))) > 1
        and all(
            isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
            for value in found
        )
    ]


def colour_of(index: int) -> str:
    """Of a point, by its place in the comparison."""
    return look.LINES[index % len(look.LINES)]


def _by_cost(axes: Axes, comparison: Comparison, score: Score, cost: str) -> None:
    """Every point with its number and bars of one standard deviation; a line along the Pareto front."""
    words, show = COSTS[cost]
    found = [(index, p.spread(cost), p.spread(score.key)) for index, p in enumerate(comparison.points, 1)]
    known = [(index, x, y) for index, x, y in found if x is not None and y is not None and x.mean > 0]
    if not known:
        axes.set_axis_off()
        axes.text(
            0.5, 0.5, "nothing is known", ha="center", va="center", color=look.MUTED, transform=axes.transAxes
        )
        return
    front = front_of((x.mean, score.error_of(y.mean)) for _, x, y in known)
    at = {(x.mean, score.error_of(y.mean)): y.mean for _, x, y in known}
    axes.plot([x for x, _ in front], [at[each] for each in front], color=look.MUTED, linewidth=1.0, zorder=1)
    for index, x, y in known:
        axes.errorbar(
            [x.mean], [y.mean], xerr=x.deviation, yerr=y.deviation, fmt="o", markersize=5.5, elinewidth=1.2,
            color=colour_of(index - 1),
        )  # fmt: skip
        axes.annotate(
            str(index),
            (x.mean, y.mean),
            xytext=(5, 4),
            textcoords="offset points",
            fontsize=8.5,
            color=look.INK,
        )
    low, high = min(x.mean for _, x, _ in known), max(x.mean for _, x, _ in known)
    if high > 8 * low:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if high < 100 * low else (1,)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.margins(x=0.12, y=0.15)
    if cost == "virtual_time_s":
        axes.set_xscale("linear")
        look.seconds_axis(axes)
    else:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: show(value)))
    _scores(axes, score)
    axes.set_xlabel(words)


def _by_round(axes: Axes, comparison: Comparison, score: Score) -> None:
    """The mean of each point's runs over the rounds, and the range of its seeds."""
    column = "accuracy" if score.is_accuracy else "loss"
    for index, point in enumerate(comparison.points[:MOST_CURVES]):
        by_round: dict[float, list[float]] = {}
        for run in point.runs:
            for row in run.rounds:
                number, value = row.get("round"), row.get(column)
                if number is not None and value is not None:
                    by_round.setdefault(number, []).append(value)
        x = sorted(by_round)
        colour = colour_of(index)
        axes.plot(x, [fmean(by_round[each]) for each in x], color=colour, linewidth=1.6, label=str(index + 1))
        axes.fill_between(
            x, [min(by_round[each]) for each in x], [max(by_round[each]) for each in x],
            color=colour, alpha=0.18, linewidth=0,
        )  # fmt: skip
    _scores(axes, score)
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.legend(loc="lower right" if score.is_accuracy else "upper right", handlelength=1.2, ncols=2)


def _by_setting(axes: Axes, comparison: Comparison, score: Score, key: str) -> None:
    """A line over the values of a key for each combination of the others, by the number of its first point."""
    lines: dict[str, list[tuple[float, int, Spread]]] = {}
    for index, point in enumerate(comparison.points):
        spread = point.spread(score.key)
        if key in point.varied and spread is not None:
            others = repr({name: value for name, value in point.varied.items() if name != key})
            lines.setdefault(others, []).append((point.varied[key], index, spread))
    for line in lines.values():
        line.sort(key=lambda each: each[0])
        first = line[0][1]
        axes.errorbar(
            [x for x, _, _ in line],
            [spread.mean for _, _, spread in line],
            yerr=[spread.deviation or 0.0 for _, _, spread in line],
            marker="o", markersize=4.5, elinewidth=1.2, color=colour_of(first),
            label=", ".join(str(index + 1) for _, index, _ in line),
        )  # fmt: skip
    values = [x for line in lines.values() for x, _, _ in line]
    if values and min(values) > 0 and max(values) > 20 * min(values):
        axes.set_xscale("log")
    _scores(axes, score)
    axes.margins(x=0.1, y=0.15)
    axes.set_xlabel(key)
    if lines:
        axes.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1), handlelength=1.2, columnspacing=1.4)


def _scores(axes: Axes, score: Score) -> None:
    if score.is_accuracy:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
