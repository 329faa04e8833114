"""Plots of a report; each draws one idea on the axes it is given."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from slimfleet.coordinator import RoundRow
from slimfleet.simulations import units
from slimfleet.simulations.outcome import DeviceRow, RunRecord
from slimfleet.simulations.report import figure as look
from slimfleet.simulations.summary import accuracy_last5, cost_to_reach

Format = Callable[[float | None], str]

WIDTH_EDGES = (0.375, 0.625, 0.875)
"""Devices' mean widths are shown in four groups, around a quarter, a half, three quarters and the whole."""
WIDTH_NAMES = ("about ¼", "about ½", "about ¾", "full")


def accuracy_by_cost(
    axes: Axes, record: RunRecord, baseline: RunRecord | None, cost: str, *, log: bool, format_cost: Format
) -> None:
    """Accuracy over the cost so far: faint single rounds, a bold mean of five; and the gap at the target."""
    runs = [("slimfleet", record, look.OURS)]
    if baseline is not None:
        runs.insert(0, ("FedAvg float32", baseline, look.BASELINE))
    for name, run, colour in runs:
        _curve(axes, run.rows, cost, colour, name)
    if log:
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(_formatter(format_cost))
    axes.yaxis.set_major_formatter(_formatter(lambda value: f"{100 * (value or 0):.0f} %"))
    if baseline is not None:
        _gap(axes, record, baseline, cost)
    axes.margins(y=0.12)
    axes.legend(loc="lower right", handlelength=1.4)


def energy_by_round(axes: Axes, rows: Sequence[RoundRow]) -> None:
    """Joules spent in each round, on computing and on the radio, and what the planner had predicted."""
    rounds = [row.round for row in rows]
    compute = [row.compute_j for row in rows]
    radio = [row.radio_j for row in rows]
    predicted = [row.predicted_energy_j for row in rows]
    axes.bar(rounds, compute, width=0.72, color=look.COMPUTE, label="computing")
    axes.bar(rounds, radio, width=0.72, bottom=compute, color=look.RADIO, label="radio")
    axes.plot(rounds, predicted, color=look.INK, linewidth=1.1, marker=".", markersize=4, label="predicted")
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.yaxis.set_major_formatter(_formatter(units.energy))
    axes.margins(x=0.01, y=0.16)
    axes.legend(ncols=3, loc="upper right", handlelength=1.2, columnspacing=1.4)


def widths_by_class(axes: Axes, devices: Sequence[DeviceRow]) -> None:
    """For each device class, the share of its devices by the mean width that they trained."""
    shares = width_shares(devices)
    classes = sorted(shares, reverse=True)
    names = ("never took part", *WIDTH_NAMES)
    left = [0.0] * len(classes)
    for index, (name, colour) in enumerate(zip(names, (look.NEVER, *look.WIDTHS), strict=True)):
        values = [shares[group][index] for group in classes]
        axes.barh(classes, values, left=left, height=0.62, color=colour, label=name)
        left = [start + value for start, value in zip(left, values, strict=True)]
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(_formatter(lambda value: f"{100 * (value or 0):.0f} %"))
    axes.set_xlabel("share of the class's devices, by the mean width they trained")
    axes.grid(visible=False)
    axes.legend(ncols=5, loc="lower left", bbox_to_anchor=(0, 1), handlelength=0.9, columnspacing=1.2)


def width_shares(devices: Sequence[DeviceRow]) -> dict[str, list[float]]:
    """Device class -> shares of its devices: first those that never took part, then from narrow to full."""
    groups: dict[str, list[int]] = defaultdict(lambda: [0] * (2 + len(WIDTH_EDGES)))
    for device in devices:
        width = device.mean_width
        group = 0 if width is None else 1 + sum(width > edge for edge in WIDTH_EDGES)
        groups[device.device_class][group] += 1
    return {name: [count / sum(counts) for count in counts] for name, counts in groups.items()}


def _curve(axes: Axes, rows: Sequence[RoundRow], cost: str, colour: str, name: str) -> None:
    spent = list(accumulate(getattr(row, cost) for row in rows))
    points = [
        (x, row.accuracy, row.trailing_accuracy)
        for x, row in zip(spent, rows, strict=True)
        if row.accuracy is not None and row.trailing_accuracy is not None
    ]
    x = [point[0] for point in points]
    axes.plot(x, [point[1] for point in points], color=colour, linewidth=0.9, alpha=0.35)
    axes.plot(x, [point[2] for point in points], color=colour, linewidth=2.2, label=name)


def _gap(axes: Axes, record: RunRecord, baseline: RunRecord, cost: str) -> None:
    """An arrow at the baseline's final accuracy, from where it got there to where we did."""
    target = accuracy_last5(baseline.rows)
    if target is None:
        return
    axes.axhline(target, color=look.MUTED, linewidth=0.8, linestyle=(0, (3, 3)), zorder=1)
    theirs, ours = (cost_to_reach(run.rows, target)[cost] for run in (baseline, record))
    if not theirs or not ours:
        return
    arrow: dict[str, Any] = {
        "arrowstyle": "-|>",
        "color": look.INK,
        "linewidth": 1.2,
        "shrinkA": 4,
        "shrinkB": 4,
    }
    axes.annotate("", xy=(ours, target), xytext=(theirs, target), arrowprops=arrow)
    axes.plot([theirs], [target], "o", color=look.BASELINE, markersize=5.5)
    axes.plot([ours], [target], "o", color=look.OURS, markersize=5.5)
    middle = (ours * theirs) ** 0.5 if axes.get_xscale() == "log" else (ours + theirs) / 2
    words = f"{units.times(theirs / ours)} less" if ours <= theirs else f"{units.times(ours / theirs)} more"
    axes.annotate(
        words, xy=(middle, target), xytext=(0, 6), textcoords="offset points", ha="center",
        fontweight="bold", fontsize=11, color=look.INK,
    )  # fmt: skip


def _formatter(format_value: Callable[[float], str] | Format) -> FuncFormatter:
    return FuncFormatter(lambda value, _: format_value(value))
