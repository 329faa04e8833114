"""Plots of a report; each draws one idea on the axes it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from math import isfinite
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from slimfleet.compression.reporting import figure as look
from slimfleet.compression.reporting import units
from slimfleet.coordinator.learning.row import RoundRow
from slimfleet.coordinator.reporting.outcome import DeviceRow, RunRecord
from slimfleet.coordinator.reporting.summary import accuracy_last5, cost_to_reach
from slimfleet.coordinator.reporting.words import by_class

Format = Callable[[float | None], str]
Curve = Sequence[tuple[float, float]]

WIDTH_EDGES = (0.375, 0.625, 0.875)
"""Devices' mean widths are shown in four groups, around a quarter, a half, three quarters and the whole."""
LARGEST = 1e100
"""Values that are not below it count as unknown: a diverged loss would flatten every other, or overflow the axis."""
MOST_CLASSES, LONGEST_NAME = 30, 16
"""What a plot of classes has room for."""
GROUPS = (
    ("never chosen", look.NEVER),
    ("skipped", look.SKIPPED),
    ("no update used", look.FAILED),
    ("about ¼", look.WIDTHS[0]),
    ("about ½", look.WIDTHS[1]),
    ("about ¾", look.WIDTHS[2]),
    ("full", look.WIDTHS[3]),
)
"""Of devices, by what became of them."""


def accuracy_by_cost(
    axes: Axes, record: RunRecord, baseline: RunRecord | None, cost: str, *, log: bool, format_cost: Format
) -> None:
    """Accuracy over the cost so far: each round's model bold, the mean of five thin; and the gap at the target."""

    def spent(rows: Sequence[RoundRow]) -> list[float]:
        return list(accumulate(getattr(row, cost) for row in rows))

    if not _accuracies(axes, record, baseline, spent, above=0.0 if log else -1.0):
        return
    if log:
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if high < 100 * low else (1,)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    if cost == "virtual_time_s":
        look.seconds_axis(axes)
    else:
        axes.xaxis.set_major_formatter(formatter(format_cost))
    if baseline is not None:
        _gap(axes, record, baseline, cost)


def accuracy_by_round(axes: Axes, record: RunRecord, baseline: RunRecord | None) -> None:
    """Accuracy over the rounds: each round's model bold, the mean of five thin."""
    if _accuracies(axes, record, baseline, lambda rows: [row.round for row in rows], above=0.0):
        _rounds(axes)


def loss_by_round(axes: Axes, record: RunRecord, baseline: RunRecord | None) -> None:
    """Loss of each round's model on the data held out."""
    curves = [
        (name, colour, _curve(run.rows, lambda row: row.loss))
        for name, colour, run in _runs(record, baseline)
    ]
    if not any(curve for _, _, curve in curves):
        nothing(axes, "no loss is known")
        return
    for name, colour, curve in curves:
        _plot(axes, curve, color=colour, linewidth=2.0, label=name)
    axes.margins(y=0.12)
    axes.legend(loc="upper right", handlelength=1.4)
    _rounds(axes)


def energy_by_round(axes: Axes, record: RunRecord, baseline: RunRecord | None) -> None:
    """Joules spent in each round, on computing and on the radio; what the planner predicted, and the baseline's."""
    rows = record.rows
    totals = [_curve(run.rows, lambda row: row.energy_j) for _, _, run in _runs(record, baseline)]
    if not any(joules for curve in totals for _, joules in curve):
        nothing(axes, "no joules were spent")
        return
    known = [row for row in rows if row.energy_j < LARGEST]
    rounds, compute = [row.round for row in known], [row.compute_j for row in known]
    axes.bar(rounds, compute, width=0.72, color=look.COMPUTE, label="computing")
    axes.bar(
        rounds, [row.radio_j for row in known], width=0.72, bottom=compute, color=look.RADIO, label="radio"
    )
    _plot(
        axes,
        _curve(rows, lambda row: row.predicted_energy_j),
        color=look.INK,
        linewidth=1.1,
        label="predicted",
    )
    if baseline is not None:
        _plot(axes, totals[0], color=look.BASELINE, linewidth=1.6, label="FedAvg float32")
    axes.yaxis.set_major_formatter(formatter(units.energy))
    axes.set_ylim(bottom=0)
    axes.margins(x=0.02)
    axes.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1), handlelength=1.2, columnspacing=1.4)
    _rounds(axes)


def widths_by_class(axes: Axes, devices: Sequence[DeviceRow]) -> None:
    """For each device class, the share of its devices by the mean width that they trained, or why they trained none."""
    shares = width_shares(devices)
    if not shares:
        nothing(axes, "no device registered")
        return
    classes = list(shares)[:MOST_CLASSES][::-1]
    at = range(len(classes))
    left = [0.0] * len(classes)
    for index, (name, colour) in enumerate(GROUPS):
        values = [shares[group][index] for group in classes]
        axes.barh(at, values, left=left, height=0.62, color=colour, label=name)
        left = [start + value for start, value in zip(left, values, strict=True)]
    axes.set_yticks(at, [cut(name) for name in classes])
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(formatter(lambda value: f"{100 * (value or 0):.0f} %"))
    axes.set_xlabel("share of the class's devices")
    axes.grid(visible=False)
    axes.legend(ncols=3, loc="lower left", bbox_to_anchor=(-0.2, 1), handlelength=0.9, columnspacing=1.0)


def cut(name: str) -> str:
    """A class's name as long as a plot has room for."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def width_shares(devices: Sequence[DeviceRow]) -> dict[str, list[float]]:
    """Device class -> shares of its devices in each of `GROUPS`."""
    shares = {}
    for name, group in by_class(devices).items():
        found = [_group(device) for device in group]
        shares[name] = [found.count(index) / len(found) for index in range(len(GROUPS))]
    return shares


def _group(device: DeviceRow) -> int:
    if device.mean_width is not None:
        return 3 + sum(device.mean_width > edge for edge in WIDTH_EDGES)
    return 2 if device.failures or device.rejections else int(device.skips > 0)


def _runs(record: RunRecord, baseline: RunRecord | None) -> list[tuple[str, str, RunRecord]]:
    """Name, colour and record of each run, ours on top."""
    plain = [] if baseline is None else [("FedAvg float32", look.BASELINE, baseline)]
    return [*plain, ("slimfleet", look.OURS, record)]


def _accuracies(
    axes: Axes,
    record: RunRecord,
    baseline: RunRecord | None,
    x_of: Callable[[Sequence[RoundRow]], Sequence[float]],
    above: float,
) -> bool:
    """Draw the accuracy of every run where x is above a bound; False where there is nothing to draw."""
    drawn = False
    for name, colour, run in _runs(record, baseline):
        x = x_of(run.rows)
        single = _curve(run.rows, lambda row: row.accuracy, x, above)
        trailing = _curve(
            run.rows, lambda row: row.trailing_accuracy if row.accuracy is not None else None, x, above
        )
        drawn |= bool(single)
        _plot(axes, trailing, color=colour, linewidth=0.9, alpha=0.6)
        _plot(axes, single, color=colour, linewidth=2.2, label=name)
    if not drawn:
        nothing(axes, "no accuracy is known")
        return False
    axes.yaxis.set_major_formatter(formatter(lambda value: f"{100 * (value or 0):.0f} %"))
    axes.margins(y=0.12)
    axes.legend(loc="lower right", handlelength=1.4)
    return True


def _curve(
    rows: Sequence[RoundRow],
    y_of: Callable[[RoundRow], float | None],
    x: Sequence[float] | None = None,
    above: float = 0.0,
) -> Curve:
    """The points that are known, over the rounds or over `x`; those not above the bound are left out."""
    points = zip([row.round for row in rows] if x is None else x, map(y_of, rows), strict=True)
    return [(at, y) for at, y in points if y is not None and above < at < LARGEST and abs(y) < LARGEST]


def _plot(axes: Axes, curve: Curve, **style: Any) -> None:
    """A line through the points; a dot where there is only one."""
    dot: dict[str, Any] = {"marker": "o", "markersize": 5} if len(curve) == 1 else {}
    axes.plot([x for x, _ in curve], [y for _, y in curve], **style, **dot)


def _rounds(axes: Axes) -> None:
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def nothing(axes: Axes, words: str) -> None:
    """A panel that says why it is empty."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, words, ha="center", va="center", color=look.MUTED, transform=axes.transAxes)


def _gap(axes: Axes, record: RunRecord, baseline: RunRecord, cost: str) -> None:
    """An arrow at the baseline's final accuracy, from where it got there to where we did."""
    target = accuracy_last5(baseline.rows)
    if target is None or not isfinite(target):
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


def formatter(format_value: Callable[[float], str] | Format) -> FuncFormatter:
    """Ticks as people read them."""
    return FuncFormatter(lambda value, _: format_value(value))
