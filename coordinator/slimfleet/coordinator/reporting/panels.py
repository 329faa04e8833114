"""Panels: the plots of a run as elements of a page, or side by side in one picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from slimfleet.compression.reporting import units
from slimfleet.compression.reporting.figure import save_png, styled, svg
from slimfleet.coordinator.reporting import class_plots, plots
from slimfleet.coordinator.reporting.outcome import RunRecord

__all__ = ["page_panels", "save_picture"]

WIDTH_IN = 3.6
"""Of every panel. It fills a telephone's screen at a legible size; wider pages show several side by side."""


def page_panels(record: RunRecord, baseline: RunRecord | None) -> dict[str, str]:
    """Every plot of the page as SVG, by name."""
    classes = min(len({device.device_class for device in record.device_rows}), plots.MOST_CLASSES)
    draw: Mapping[str, tuple[float, Callable[[Axes], None]]] = {
        "uplink": (2.9, lambda axes: _by_uplink(axes, record, baseline)),
        "downlink": (2.9, lambda axes: _by_downlink(axes, record, baseline)),
        "joules": (2.9, lambda axes: _by_joules(axes, record, baseline)),
        "accuracy": (2.9, lambda axes: plots.accuracy_by_round(axes, record, baseline)),
        "loss": (2.9, lambda axes: plots.loss_by_round(axes, record, baseline)),
        "energy": (2.9, lambda axes: plots.energy_by_round(axes, record, baseline)),
        "time": (2.9, lambda axes: _by_time(axes, record, baseline)),
        "widths": (1.5 + 0.3 * max(classes, 1), lambda axes: plots.widths_by_class(axes, record.device_rows)),
        "battery": (2.9, lambda axes: class_plots.battery_by_class(axes, record.rows)),
        **{
            name: (1.1 + 0.3 * max(classes, 1), partial(_spread, record=record, name=name))
            for name in ("class_energy", "class_time", "class_error")
        },
    }
    panels = {}
    with styled():
        for name, (height, plot) in draw.items():
            figure = Figure(figsize=(WIDTH_IN, height))
            plot(figure.add_subplot())
            panels[name] = svg(figure, name)
    return panels


def save_picture(record: RunRecord, baseline: RunRecord | None, path_png: Path) -> None:
    """The main plots of a run in one PNG: accuracy by bytes and by joules, and joules by round.

    Raises DiskError where the disk refuses.
    """
    with styled():
        figure = Figure(figsize=(11.4, 6.6))
        grid = figure.add_gridspec(2, 2, height_ratios=(1.25, 1))
        uplink = figure.add_subplot(grid[0, 0])
        joules = figure.add_subplot(grid[0, 1], sharey=uplink)
        energy = figure.add_subplot(grid[1, :])
        _by_uplink(uplink, record, baseline)
        _by_joules(joules, record, baseline)
        plots.energy_by_round(energy, record, baseline)
        uplink.set_title("Accuracy by bytes sent")
        joules.set_title(f"Accuracy by joules spent ({record.energy_source})")
        energy.set_title(f"Joules by round ({record.energy_source})")
        save_png(figure, path_png)


def _by_uplink(axes: Axes, record: RunRecord, baseline: RunRecord | None) -> None:
    plots.accuracy_by_cost(axes, record, baseline, "uplink_bytes", log=True, format_cost=units.data)
    axes.set_xlabel("bytes sent by all devices so far")


def _by_downlink(axes: Axes, record: RunRecord, baseline: RunRecord | None) -> None:
    plots.accuracy_by_cost(axes, record, baseline, "downlink_bytes", log=True, format_cost=units.data)
    axes.set_xlabel("bytes sent to all devices so far")


def _by_time(axes: Axes, record: RunRecord, baseline: RunRecord | None) -> None:
    plots.accuracy_by_cost(axes, record, baseline, "virtual_time_s", log=False, format_cost=units.duration)
    axes.set_xlabel("time of the rounds so far")


def _spread(axes: Axes, record: RunRecord, name: str) -> None:
    def per_update(field: str) -> dict[str, list[float]]:
        return class_plots.per_update(record.device_rows, lambda each: float(getattr(each, field)))

    values, words, show = {
        "class_energy": (per_update("energy_j"), "joules for an update", units.energy),
        "class_time": (per_update("time_s"), "time for an update", units.duration),
        "class_error": (class_plots.errors_of(record.rows), "squared error allowed", units.plain),
    }[name]
    class_plots.spread_by_class(axes, values, words, show)


def _by_joules(axes: Axes, record: RunRecord, baseline: RunRecord | None) -> None:
    plots.accuracy_by_cost(axes, record, baseline, "energy_j", log=False, format_cost=units.energy)
    axes.set_xlabel("joules spent by all devices so far")
