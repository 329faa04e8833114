"""Panels: the plots of a run as elements of a page, or side by side in one picture."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from slimfleet.simulations import units
from slimfleet.simulations.outcome import RunRecord
from slimfleet.simulations.report import plots
from slimfleet.simulations.report.figure import save_png, styled, svg


def uplink_panel(record: RunRecord, baseline: RunRecord | None) -> str:
    """Accuracy over bytes sent, as SVG."""
    with styled():
        figure, axes = _panel(5.6, 3.5)
        _accuracy_by_uplink(axes, record, baseline)
        return svg(figure, "uplink")


def joules_panel(record: RunRecord, baseline: RunRecord | None) -> str:
    """Accuracy over joules spent, as SVG."""
    with styled():
        figure, axes = _panel(5.6, 3.5)
        _accuracy_by_joules(axes, record, baseline)
        return svg(figure, "joules")


def energy_panel(record: RunRecord) -> str:
    """Joules of each round, as SVG."""
    with styled():
        figure, axes = _panel(11.4, 3.0)
        plots.energy_by_round(axes, record.rows)
        return svg(figure, "energy")


def widths_panel(record: RunRecord) -> str:
    """Widths by device class, as SVG."""
    with styled():
        classes = len({device.device_class for device in record.device_rows})
        figure, axes = _panel(11.4, 1.1 + 0.36 * max(classes, 1))
        plots.widths_by_class(axes, record.device_rows)
        return svg(figure, "widths")


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
        _accuracy_by_uplink(uplink, record, baseline)
        _accuracy_by_joules(joules, record, baseline)
        plots.energy_by_round(energy, record.rows)
        uplink.set_title("Accuracy by bytes sent")
        joules.set_title(f"Accuracy by joules spent ({record.energy_source})")
        energy.set_title(f"Joules by round ({record.energy_source})")
        save_png(figure, path_png)


def _panel(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


def _accuracy_by_uplink(axes: Axes, record: RunRecord, baseline: RunRecord | None) -> None:
    plots.accuracy_by_cost(axes, record, baseline, "uplink_bytes", log=True, format_cost=units.data)
    axes.set_xlabel("bytes sent by all devices so far (logarithmic)")


def _accuracy_by_joules(axes: Axes, record: RunRecord, baseline: RunRecord | None) -> None:
    plots.accuracy_by_cost(axes, record, baseline, "energy_j", log=False, format_cost=units.energy)
    axes.set_xlabel(f"joules spent by all devices so far ({record.energy_source})")
