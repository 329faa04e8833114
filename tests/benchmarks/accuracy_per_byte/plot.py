"""The picture: accuracy by rate, and by bytes sent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from cache import Run
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from methods import METHODS, REFERENCE
from outcomes import Outcome, accuracies, sent_so_far

from slimfleet.compression.reporting import figure as look
from slimfleet.compression.reporting import units

COLOURS = {
    "float32": look.BASELINE,
    "ours, error feedback": look.OURS,
    "ours, unbiased": "#c2557a",
    "ours": "#7fc0d0",
    "STC": "#8a5a9e",
    "QSGD": "#7d8a3c",
}
CURVES = (
    REFERENCE,
    "ours 0.1 bit, feedback",
    "ours 0.1 bit, unbiased",
    "ours 0.1 bit",
    "STC 1%",
    "QSGD ternary",
)

_RATES = (0.03, 0.1, 0.3, 1, 3, 10, 32)


def save(outcomes: Sequence[Outcome], runs: Sequence[Run], path: Path) -> None:
    """Write both panels to the PNG file `path`."""
    with look.styled():
        figure = Figure(figsize=(12, 4.8), facecolor=look.PAPER, dpi=150)
        by_rate, by_bytes = figure.subplots(1, 2)
        _by_rate(by_rate, outcomes)
        _by_bytes(by_bytes, runs)
        for axes in (by_rate, by_bytes):
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
            axes.xaxis.set_minor_locator(NullLocator())
        figure.savefig(path, facecolor=look.PAPER, metadata={"Software": None})


def _by_rate(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    for family, colour in COLOURS.items():
        points = sorted(
            (o.bits_per_parameter.mean, o.accuracy.mean, np.nan_to_num(o.accuracy.error))
            for o in outcomes
            if METHODS[o.method].family == family
        )
        if points:
            rates, means, errors = zip(*points, strict=True)
            axes.errorbar(
                rates, means, yerr=errors, color=colour, label=family, marker="o", markersize=5, capsize=3
            )
    reference = next(o for o in outcomes if o.method == REFERENCE)
    axes.axhline(reference.accuracy.mean, color=look.BASELINE, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set_xscale("log")
    axes.set_xticks(_RATES, [f"{rate:g}" for rate in _RATES])
    axes.set_title("Final accuracy by rate")
    axes.set_xlabel("uplink bits per parameter (logarithmic)")
    axes.legend(loc="lower right", bbox_to_anchor=(0.97, 0.02))


def _by_bytes(axes: Axes, runs: Sequence[Run]) -> None:
    lowest = []
    for name in CURVES:
        group = [run for run in runs if run.method == name]
        if not group:
            continue
        accuracy = np.array([accuracies(run) for run in group])
        sent = np.mean([sent_so_far(run) for run in group], axis=0)
        mean, colour = accuracy.mean(axis=0), COLOURS[METHODS[name].family]
        axes.plot(sent, mean, color=colour, label=name, linewidth=1.8)
        if len(group) > 1:
            error = accuracy.std(axis=0, ddof=1) / np.sqrt(len(group))
            axes.fill_between(sent, mean - error, mean + error, color=colour, alpha=0.18, linewidth=0)
        lowest.append(mean[len(mean) // 5])
    axes.set_ylim(bottom=min(lowest))
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: units.data(value)))
    axes.set_title("Accuracy by bytes sent")
    axes.set_xlabel("bytes sent by all clients so far (logarithmic); bands: standard error")
    axes.legend(loc="lower center", bbox_to_anchor=(0.58, 0.02))
