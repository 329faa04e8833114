"""The results as a picture: size over error for every update, and size over speed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from experiment import NNCODEC, TARGETS, Case

SPEED_TARGET = 0.1


def picture(cases: Sequence[Case]) -> bytes:
    """A PNG."""
    from matplotlib.figure import Figure

    shown = [case for case in cases if case.scope == "weights+biases"]
    names = list(dict.fromkeys(name for case in shown for name in case.results[SPEED_TARGET]))
    styles = {name: _style(name, index) for index, name in enumerate(names)}
    figure = Figure(figsize=(4 * max(len(shown), 2), 8), layout="constrained")
    grid = figure.add_gridspec(2, 2 * max(len(shown), 2))
    for index, case in enumerate(shown):
        _sizes(figure.add_subplot(grid[0, 2 * index : 2 * index + 2]), case, styles)
    half = max(len(shown), 2)
    for index, what in enumerate(("encode", "decode")):
        axes = figure.add_subplot(grid[1, index * half : (index + 1) * half])
        _speeds(axes, shown, styles, what)
    lines, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=2 * max(len(shown), 2) - 1, frameon=False)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()


def _style(name: str, index: int) -> dict[str, Any]:
    ours = name.startswith("slimfleet")
    return {
        "color": f"C{index % 10}",
        "marker": "o" if ours else "s" if name.startswith(NNCODEC) else "x",
        "linewidth": 2.5 if ours else 1.2,
        "linestyle": "-" if ours or name == NNCODEC else "--",
    }


def _sizes(axes: Any, case: Case, styles: dict[str, dict[str, Any]]) -> None:
    for name, style in styles.items():
        sizes = [getattr(case.results[t].get(name), "bytes", None) or np.nan for t in TARGETS]
        axes.loglog(TARGETS, [8 * size / case.parameters for size in sizes], label=name, **style)
    axes.set_title(f"{case.update} ({case.parameters:,} parameters)", fontsize=10)
    axes.set_xlabel("NMSE")
    axes.set_ylabel("bits a parameter")
    axes.set_xticks(TARGETS, [f"{t:g}" for t in TARGETS])
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3, which="both")


def _speeds(axes: Any, cases: Sequence[Case], styles: dict[str, dict[str, Any]], what: str) -> None:
    for name, style in styles.items():
        pairs = [
            (getattr(case.results[SPEED_TARGET][name], what), case.ratio(SPEED_TARGET, name, NNCODEC))
            for case in cases
            if name in case.results[SPEED_TARGET]
        ]
        known = [(speed, ratio) for speed, ratio in pairs if speed and ratio]
        if known:
            speed, ratio = np.exp(np.mean(np.log(known), axis=0))
            axes.loglog(speed, ratio, **style | {"linestyle": "none", "markersize": 9})
    axes.axhline(1.0, color="grey", linewidth=0.8)
    axes.set_xlabel(
        f"{what}: MB of float32 a processor second, at NMSE {SPEED_TARGET:g}, mean of the updates"
    )
    axes.set_ylabel("bytes / NNCodec's")
    axes.grid(alpha=0.3, which="both")
