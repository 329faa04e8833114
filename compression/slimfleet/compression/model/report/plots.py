"""Plots of a compression; each draws one idea on the axes it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from slimfleet.compression.model.saving.stored import StoredTensor
from slimfleet.compression.model.technique import Curve, Plot
from slimfleet.compression.reporting import figure as look

__all__ = ["NAMED", "Bar", "bits", "curves", "shares_of_zeros", "sizes", "waterfall"]

Format = Callable[[float], str]
Bar = tuple[str, float, str]
"""A step's name, what it left, and what is said of it."""

NAMED = 10
"""Curves of a plot that have a colour and a name, those that change most; the others are grey."""
LONGEST_NAME = 20
LARGEST = 1e100
"""Values that are not below it count as unknown: they would overflow the axis."""
WIDE = 20
"""A ratio of largest to smallest from which a scale is logarithmic."""


def waterfall(axes: Axes, bars: Sequence[Bar], limit: float | None, format_value: Format) -> None:
    """What is left after each step, dark, and what the step took away, light; the first bar is the model before."""
    values = [value for _, value, _ in bars]
    smallest = min(value for value in (*values, limit or values[0]) if value > 0)
    log = max(values) > WIDE * smallest
    left = smallest / 3 if log else 0.0
    if log:
        axes.set_xscale("log")
        axes.set_xlabel("logarithmic")
    for row, (name, value, said) in enumerate(bars):
        before = values[max(row - 1, 0)]
        axes.barh(row, value - left, left=left, height=0.34, color=look.OURS)
        lost, colour = (before - value, look.WIDTHS[0]) if value <= before else (value - before, look.RADIO)
        axes.barh(row, lost, left=min(value, before), height=0.34, color=colour)
        for x, side, words in ((0.0, "left", name), (1.0, "right", said)):
            axes.text(
                x, row - 0.26, words, ha=side, va="bottom", color=look.INK if side == "left" else look.MUTED,
                transform=axes.get_yaxis_transform(),
            )  # fmt: skip
    if limit is not None:
        rows = range(len(bars))  # only across the bars: a line through the words would make them illegible
        at = [row - 0.24 for row in rows], [row + 0.24 for row in rows]
        axes.vlines([limit] * len(bars), *at, color=look.BASELINE, linewidth=2.2, label="target")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), handlelength=1.4)
    axes.set_xlim(left, max(*values, limit or 0))
    axes.set_ylim(len(bars) - 0.6, -0.75)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(LogLocator(numticks=5) if log else MaxNLocator(4))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(_formatter(format_value))


def bits(axes: Axes, tensors: Sequence[StoredTensor]) -> None:
    """Bits of a value at rest, light, and what it takes in the file, dark."""
    _bars(axes, tensors, [each.bits for each in tensors], look.WIDTHS[1], 0.7, "bits of a value")
    _bars(axes, tensors, [each.bits_per_weight for each in tensors], look.OURS, 0.34, "bits in the file")
    axes.legend(ncols=2, loc="lower right", bbox_to_anchor=(1, 1), handlelength=0.9, columnspacing=1.0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def shares_of_zeros(axes: Axes, tensors: Sequence[StoredTensor]) -> None:
    """Share of the values that are zero."""
    _bars(axes, tensors, [each.zeros / max(each.elements, 1) for each in tensors], look.OURS, 0.6)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(_formatter(lambda value: f"{100 * value:.0f} %"))


def sizes(axes: Axes, tensors: Sequence[StoredTensor], format_value: Format) -> None:
    """Bytes in the file."""
    _bars(axes, tensors, [each.bytes for each in tensors], look.OURS, 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(_formatter(format_value))


def _bars(
    axes: Axes, tensors: Sequence[StoredTensor], values: Sequence[float], colour: str, height: float,
    label: str = "",
) -> None:  # fmt: skip
    """A bar a tensor, the first on top."""
    at = range(len(tensors))
    axes.barh(at, values, height=height, color=colour, label=label or None)
    axes.set_yticks(at, [_cut(each.name) for each in tensors], fontsize=8)
    axes.set_ylim(len(tensors) - 0.4, -0.6)
    axes.grid(visible=False)
    axes.grid(visible=True, axis="x")


def curves(axes: Axes, plot: Plot) -> None:
    """Curves over common axes. Of many, those that change most have names, and the others are grey."""
    drawn = [(each, _known(each)) for each in plot.curves]
    drawn = [(each, points) for each, points in drawn if points]
    if not drawn:
        axes.text(0.5, 0.5, "nothing was measured", ha="center", color=look.MUTED, transform=axes.transAxes)
        axes.set_axis_off()
        return
    named = {id(each) for each, _ in sorted(drawn, key=lambda pair: -_spread(pair[1]))[:NAMED]}
    colours = iter(look.LINES)
    for each, points in drawn:
        if id(each) not in named:
            _curve(axes, each, points, color=look.MUTED, alpha=0.35, linewidth=1.0, zorder=1)
    for each, points in drawn:
        if id(each) in named:
            _curve(axes, each, points, color=next(colours), linewidth=1.7, label=_cut(each.name))
    if plot.limit is not None:
        axes.axvline(plot.limit, color=look.MUTED, linewidth=1.2, linestyle="--", label="target")
    _scale(axes.set_xscale, axes.xaxis, [x for _, points in drawn for x, _ in points])
    _scale(axes.set_yscale, axes.yaxis, [y for _, points in drawn for _, y in points])
    axes.set_xlabel(plot.x)
    axes.set_ylabel(plot.y)
    axes.margins(x=0.04, y=0.08)
    if len(drawn) > 1 or plot.limit is not None:
        axes.legend(
            ncols=2,
            loc="lower left",
            bbox_to_anchor=(-0.15, 1),
            handlelength=1.2,
            columnspacing=1.0,
            fontsize=8,
        )


def _curve(axes: Axes, curve: Curve, points: Sequence[tuple[float, float]], **style: Any) -> None:
    """A line, points, or a ring around the one point of what is not joined."""
    marks: dict[str, Any] = {} if curve.joined else {"linestyle": "none", "marker": "o", "markersize": 3.5}
    if len(points) == 1:
        marks = {"marker": "o", "markersize": 5}
        if not curve.joined:
            marks = {
                "linestyle": "none",
                "marker": "o",
                "markersize": 10,
                "markerfacecolor": "none",
                "zorder": 4,
            }
    axes.plot([x for x, _ in points], [y for _, y in points], **{**style, **marks})


def _known(curve: Curve) -> list[tuple[float, float]]:
    pairs = zip(curve.x, curve.y, strict=True)
    return [(x, y) for x, y in pairs if isfinite(x) and isfinite(y) and max(abs(x), abs(y)) < LARGEST]


def _spread(points: Sequence[tuple[float, float]]) -> float:
    """How much a curve changes; of one point, how high it is."""
    values = [y for _, y in points]
    return max(values) - min(values) if len(values) > 1 else values[0]


def _scale(set_scale: Callable[[str], None], axis: Any, values: Sequence[float]) -> None:
    """Logarithmic where the values are positive and far apart."""
    if min(values) > 0 and max(values) > WIDE * min(values):
        set_scale("log")
        axis.set_major_locator(LogLocator(subs=(1, 3), numticks=7))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(MaxNLocator(6, integer=all(float(value).is_integer() for value in values)))
    axis.set_major_formatter(_formatter(lambda value: f"{value:.4g}"))


def _cut(name: str) -> str:
    """The end of a long name: it says more than the beginning."""
    return name if len(name) <= LONGEST_NAME else f"…{name[1 - LONGEST_NAME :]}"


def _formatter(format_value: Format) -> FuncFormatter:
    return FuncFormatter(lambda value, _: format_value(value))
