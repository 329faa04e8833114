"""Picture of the results: how small at which loss, and bytes without training beside NNCodec's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from slimfleet.compression.reporting.figure import BASELINE, INK, LINES, MUTED, OURS, save_png, styled

from .cases import CASES

Rows = Mapping[tuple[str, int], Any]


def draw(recipes: Rows, coded: Rows, path: Path) -> None:
    """Write the picture."""
    with styled():
        figure = Figure(figsize=(10, 4.2))
        left, right = figure.subplots(1, 2)
        _recipes(left, recipes)
        _coded(right, coded)
        save_png(figure, path)


def _recipes(axes: Axes, outcomes: Rows) -> None:
    axes.set_title("Recipes: times smaller, points lost")
    axes.set_xscale("log")
    for number, case in enumerate(CASES.values()):
        colour = LINES[number % len(LINES)]
        own = [outcome for (name, _), outcome in outcomes.items() if name == case.name]
        axes.plot(1 / case.size, case.loss, marker="x", color=colour, linestyle="none", markersize=8)
        for each in own:
            reached, lost = 1 / each["size"], each["points"]
            axes.plot([1 / case.size, reached], [case.loss, lost], color=colour, linewidth=0.6)
            axes.plot(reached, lost, marker="o", color=colour, linestyle="none", markersize=6)
        axes.plot([], [], marker="o", color=colour, linestyle="none", markersize=6, label=case.name)
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.set_xlabel("times smaller: float32 bytes over those of model.slim; x: target")
    axes.set_ylabel("points of test accuracy lost")
    axes.set_xticks([30, 40, 50, 60, 80, 100], ["30", "40", "50", "60", "80", "100"])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(top=2.6)
    axes.legend(fontsize=8.5, ncols=3, loc="upper center")


def _coded(axes: Axes, rows: Rows) -> None:
    axes.set_title("Without training, at most 0.5 points lost")
    methods = {"NNCodec": BASELINE, "pack": MUTED, "round": OURS}
    cases = [name for name in CASES if any(case == name for case, _ in rows)]
    for offset, (method, colour) in enumerate(methods.items()):
        heights = [
            mean(_ratio(each, method) for (case, _), each in rows.items() if case == name) for name in cases
        ]
        places = [place + (offset - 1) * 0.27 for place in range(len(cases))]
        axes.bar(places, heights, width=0.25, color=colour, label=method)
        for place, height in zip(places, heights, strict=True):
            axes.text(place, height, f"{height:.2f}", ha="center", va="bottom", fontsize=8, color=INK)
    axes.set_xticks(range(len(cases)), cases)
    axes.set_ylabel("bytes over NNCodec's")
    axes.set_ylim(top=1.7)
    axes.legend(fontsize=8.5, ncols=3)


def _ratio(rows: Any, method: str) -> float:
    """Bytes over NNCodec's, each in its best setting."""
    ours, theirs = (
        min(row["bytes"] for row in rows if row["method"].startswith(name)) for name in (method, "NNCodec")
    )
    return float(ours / theirs)
