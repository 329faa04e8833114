"""The results as a picture: size over error for every update, and size over speed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from experiment import NNCODEC, OURS, OURS_SIDE, TARGETS, Case
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from slimfleet.compression.reporting import figure as look

SPEED_TARGET = 0.1
SHOWN = "weights+biases"

Style = dict[str, Any]


def picture(cases: Sequence[Case]) -> bytes:
    """A PNG: above, bits a parameter by error, a panel for each update; below, size by speed of both directions."""
    shown = [case for case in cases if case.scope == SHOWN]
    styles = _styles(shown)
    columns = max(len(shown), 2)
    with look.styled():
        figure = Figure(
            figsize=(max(3.2 * columns, 10), 8.4), layout="constrained", facecolor=look.PAPER, dpi=130
        )
        grid = figure.add_gridspec(2, 2 * columns, height_ratios=(1, 1.1))
        for index, case in enumerate(shown):
            axes = figure.add_subplot(grid[0, 2 * index : 2 * index + 2])
            _sizes(axes, case, styles)
            if index == 0:
                axes.set_ylabel("bits a parameter (logarithmic)")
        for index, what in enumerate(("encode", "decode")):
            axes = figure.add_subplot(grid[1, index * columns : (index + 1) * columns])
            _speeds(axes, shown, styles, what)
        lines, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(lines, labels, loc="outside lower center", ncols=5, frameon=False)
        out = io.BytesIO()
        figure.savefig(out, format="png", facecolor=look.PAPER, metadata={"Software": None})
    return out.getvalue()


def _styles(cases: Sequence[Case]) -> dict[str, Style]:
    names = dict.fromkeys(name for case in cases for name in case.results[SPEED_TARGET] if name != OURS_SIDE)
    special = {
        OURS["small"]: ("#0b6e83", "o", 2.6),
        OURS["fast"]: ("#5db7cb", "o", 2.6),
        NNCODEC: ("#c0392b", "s", 2.0),
    }
    others = iter(("#8a5a9e", "#7d8a3c", "#b9770e", "#4a5a6a", "#9aa5b1", "#b06a8c"))
    styles = {}
    for name in names:
        colour, marker, width = special.get(name) or (next(others), "x", 1.1)
        styles[name] = {
            "color": colour,
            "marker": marker,
            "linewidth": width,
            "linestyle": "-" if name in special else "--",
        }
    return styles


def _sizes(axes: Axes, case: Case, styles: dict[str, Style]) -> None:
    for name, style in styles.items():
        sizes = [getattr(case.results[t].get(name), "bytes", None) or np.nan for t in TARGETS]
        axes.loglog(
            TARGETS, [8 * size / case.parameters for size in sizes], label=name, markersize=5, **style
        )
    axes.set_title(f"{case.update.removeprefix('delta_')}\n{case.parameters:,} parameters", fontsize=10)
    axes.set_xlabel("NMSE")
    axes.set_xticks(TARGETS, [f"{t:g}" for t in TARGETS])
    _plain_numbers(axes, "y", (0.25, 0.5, 1, 2, 4))
    axes.xaxis.set_minor_locator(NullLocator())


def _speeds(axes: Axes, cases: Sequence[Case], styles: dict[str, Style], what: str) -> None:
    for name, style in styles.items():
        pairs = [
            (getattr(case.results[SPEED_TARGET][name], what), case.ratio(SPEED_TARGET, name, NNCODEC))
            for case in cases
            if name in case.results[SPEED_TARGET]
        ]
        known = [(speed, ratio) for speed, ratio in pairs if speed and ratio]
        if known:
            speed, ratio = np.exp(np.mean(np.log(known), axis=0))
            axes.loglog(speed, ratio, **style | {"linestyle": "none", "markersize": 9, "markeredgewidth": 2})
    axes.axhline(1.0, color=look.BASELINE, linewidth=0.9)
    axes.set_title(f"{what}: speed and size at NMSE {SPEED_TARGET:g}, mean of the updates", fontsize=10)
    axes.set_xlabel("MB of float32 in a second of processor time (logarithmic)")
    axes.set_ylabel("bytes over NNCodec's")
    _plain_numbers(axes, "y", (0.75, 1, 1.5, 2, 3))
    _plain_numbers(axes, "x", (5, 10, 20, 50, 100, 200, 500, 1000))


def _plain_numbers(axes: Axes, which: str, ticks: Sequence[float]) -> None:
    axis = axes.yaxis if which == "y" else axes.xaxis
    low, high = axis.get_view_interval()
    axis.set_ticks([tick for tick in ticks if low <= tick <= high])
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
