"""Plots by device class: how costs spread over its devices, and how full their batteries were."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from slimfleet.compression.reporting import figure as look
from slimfleet.compression.reporting import units
from slimfleet.coordinator.learning.row import RoundRow
from slimfleet.coordinator.quantile import nearest_rank
from slimfleet.coordinator.reporting.outcome import DeviceRow
from slimfleet.coordinator.reporting.plots import LARGEST, MOST_CLASSES, cut, formatter, nothing
from slimfleet.coordinator.reporting.words import by_class

__all__ = ["battery_by_class", "errors_of", "per_update", "spread_by_class"]

MOST_CURVES = 8


def per_update(
    devices: Sequence[DeviceRow], total_of: Callable[[DeviceRow], float]
) -> dict[str, list[float]]:
    """Class -> a device's total over its updates used, for each device that has any."""
    found = {
        name: [total_of(each) / each.participations for each in group if each.participations]
        for name, group in by_class(devices).items()
    }
    return {name: [value for value in values if abs(value) < LARGEST] for name, values in found.items()}


def errors_of(rows: Sequence[RoundRow]) -> dict[str, list[float]]:
    """Class -> mean squared error that its updates were allowed, for each round in which it had any."""
    found: dict[str, list[float]] = {}
    for each in (each for row in rows for each in row.classes):
        if each.mean_nmse is not None:
            found.setdefault(each.device_class, []).append(each.mean_nmse)
    return dict(sorted(found.items()))


def spread_by_class(
    axes: Axes, values: Mapping[str, Sequence[float]], words: str, show: Callable[[float | None], str]
) -> None:
    """For each class a dot at the median, a thick line over the middle half, a thin one over eight tenths."""
    known = {name: found for name, found in list(values.items())[:MOST_CLASSES] if found}
    if not known:
        nothing(axes, "no update was used")
        return
    names = list(known)[::-1]
    for at, name in enumerate(names):
        low, first, median, third, high = (nearest_rank(known[name], q) for q in (0.1, 0.25, 0.5, 0.75, 0.9))
        axes.plot([low, high], [at, at], color=look.WIDTHS[1], linewidth=2.0)
        axes.plot([first, third], [at, at], color=look.WIDTHS[2], linewidth=6.5)
        axes.plot([median], [at], "o", color=look.INK, markersize=4.0)
    axes.set_yticks(range(len(names)), [cut(name) for name in names])
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(formatter(show))
    axes.set_xlabel(words)
    axes.grid(visible=False)


def battery_by_class(axes: Axes, rows: Sequence[RoundRow]) -> None:
    """State of charge over virtual time: median and eight tenths of the devices that reported in a round."""
    ends_s = list(accumulate(row.virtual_time_s for row in rows))
    classes = sorted({e.device_class for row in rows for e in row.classes if e.battery_median is not None})
    if not classes:
        nothing(axes, "no device told of a battery")
        return
    for name, colour in zip(classes[:MOST_CURVES], look.LINES, strict=False):
        x, low, median, high = zip(
            *(
                (end_s, each.battery_low or 0.0, each.battery_median, each.battery_high or 0.0)
                for end_s, row in zip(ends_s, rows, strict=True)
                for each in row.classes
                if each.device_class == name and each.battery_median is not None
            ),
            strict=True,
        )
        axes.plot(x, median, color=colour, linewidth=1.8, label=cut(name))
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_ylim(0, 1.02)
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(formatter(lambda value: units.percent(value).replace(".0", "")))
    look.seconds_axis(axes)
    axes.set_xlabel("time since the run began")
    axes.legend(ncols=2, loc="lower left", bbox_to_anchor=(-0.1, 1), handlelength=1.2, columnspacing=1.2)
