"""Panels: the plots of a compression as elements of a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import ceil

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from slimfleet.compression.model.compress import Compressed
from slimfleet.compression.model.evaluation.measuring import Measured
from slimfleet.compression.model.report import plots
from slimfleet.compression.model.report.chosen import large_tensors
from slimfleet.compression.model.technique import Plot
from slimfleet.compression.reporting import units
from slimfleet.compression.reporting.figure import styled, svg

__all__ = ["page_panels", "plot_panels"]

WIDTH_IN = 3.6
"""Of every panel. It fills a telephone's screen at a legible size; wider pages show several side by side."""

Draw = Callable[[Axes], None]


def page_panels(compressed: Compressed) -> dict[str, str]:
    """The plots that every page has, as SVG, by name."""
    tensors = large_tensors(compressed.layers)
    rows = 0.9 + 0.17 * len(tensors)
    falls = 1.0 + 0.42 * (1 + len(compressed.steps))
    draw: Mapping[str, tuple[float, Draw]] = {
        "bytes": (falls, lambda axes: _fall(axes, compressed, "size", units.data)),
        "flops": (falls, lambda axes: _fall(axes, compressed, "flops", units.plain)),
        "bits": (rows, lambda axes: plots.bits(axes, tensors)),
        "zeros": (rows, lambda axes: plots.shares_of_zeros(axes, tensors)),
        "sizes": (rows, lambda axes: plots.sizes(axes, tensors, units.data)),
    }
    return {name: _svg(name, height, plot) for name, (height, plot) in draw.items()}


def plot_panels(section: str, by_title: Mapping[str, Plot]) -> dict[str, str]:
    """Plots as SVG, by title."""
    return {
        title: _svg(f"{section}-{number}", _height(plot), partial(plots.curves, plot=plot))
        for number, (title, plot) in enumerate(by_title.items())
    }


def _fall(axes: Axes, compressed: Compressed, quantity: str, format_value: plots.Format) -> None:
    field = {"size": "bytes"}.get(quantity, quantity)

    def bar(name: str, measured: Measured) -> plots.Bar:
        value = float(getattr(measured, field))
        good = f"loss {measured.loss:.4g}" if measured.accuracy is None else units.percent(measured.accuracy)
        return name, value, f"{format_value(value)} · {good}"

    limits = [t.limit(compressed.before) for t in compressed.request.targets if t.quantity == quantity]
    bars = [bar("before", compressed.before)]
    bars += [bar(each.step.technique, each.after) for each in compressed.steps]
    plots.waterfall(axes, bars, min(limits, default=None), format_value)


def _height(plot: Plot) -> float:
    """Inches: of the axes, and of the names over them."""
    named = min(len(plot.curves), plots.NAMED) + (plot.limit is not None)
    return 2.7 + (0.16 * ceil(named / 2) if named > 1 else 0.0)


def _svg(name: str, height: float, draw: Draw) -> str:
    with styled():
        figure = Figure(figsize=(WIDTH_IN, height))
        draw(figure.add_subplot())
        return svg(figure, name)
