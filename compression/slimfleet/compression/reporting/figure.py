"""Style of every plot, and its rendering: an SVG that follows its page, or a PNG that stands alone."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator

from slimfleet.compression.files import write_atomically

INK, MUTED, GRID, PAPER = "#1d2430", "#68717f", "#e3e6eb", "#fdfdfe"
OURS, BASELINE = "#1f6f8b", "#c8742b"
COMPUTE, RADIO, PREDICTED = "#1f6f8b", "#e0a458", "#68717f"
WIDTHS = ("#d3e4ea", "#93bfcd", "#4e95ab", "#1f6f8b")
"""From narrow to full."""
LINES = (
    "#1f6f8b", "#c8742b", "#4a9b63", "#9a6fb0", "#c0504d", "#8a8d2f", "#5b8fd6", "#b7679c", "#3fa39b", "#a07a55",
)  # fmt: skip
"""Of curves, told apart on light and dark pages; the first two are `OURS` and `BASELINE`."""
NEVER, SKIPPED, FAILED = "#e9eaec", "#c9c3b6", "#d5998f"

VARIABLES: Mapping[str, str] = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--paper",
    OURS: "--ours",
    BASELINE: "--baseline",
    RADIO: "--radio",
    WIDTHS[0]: "--width-1",
    WIDTHS[1]: "--width-2",
    WIDTHS[2]: "--width-3",
    NEVER: "--never",
    SKIPPED: "--skipped",
    FAILED: "--failed",
}
"""Colour -> variable of the page's style sheet, which has another value of it for dark pages."""

MOST_TICKS = 4
_STEPS_S = tuple(
    count * unit
    for unit, counts in (
        (1, (1, 2, 5, 10, 15, 30)),
        (60, (1, 2, 5, 10, 15, 30)),
        (3_600, (1, 2, 3, 6, 12)),
        (86_400, (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)),
    )
    for count in counts
)

STYLE: Mapping[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": GRID,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.5,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlepad": 12,
    "axes.facecolor": "none",
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.facecolor": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.labelcolor": MUTED,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,  # names are foreign text, and may hold any number of dollar signs
    "xtick.color": MUTED,
    "xtick.labelcolor": MUTED,
    "xtick.major.size": 3,
    "xtick.minor.visible": False,
    "ytick.color": MUTED,
    "ytick.labelcolor": MUTED,
    "ytick.major.size": 0,
}


def styled() -> Any:
    """A context in which figures are made and rendered; it leaves matplotlib's own settings as they were."""
    settings: Any = dict(STYLE)
    return rc_context(settings)


def seconds_axis(axes: Axes) -> None:
    """Ticks of the x axis at whole seconds, minutes, hours or days, and named so."""
    low, high = axes.get_xlim()
    step = next((step for step in _STEPS_S if high - low <= MOST_TICKS * step), _STEPS_S[-1])
    axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.set_xlim(low, high)


def _short(seconds: float) -> str:
    """Of whole units: 5400 is "90 min"."""
    for unit_s, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds and seconds % unit_s == 0:
            return f"{seconds / unit_s:g} {unit}"
    return f"{seconds:g} s" if seconds else "0"


def svg(figure: Figure, name: str) -> str:
    """The figure as an `<svg>` element whose colours are the page's variables.

    `name` makes its element ids differ from those of the other plots of the page. The same figure gives the
    same text every time: no date, no random ids, no metadata.
    """
    text = io.StringIO()
    with rc_context({"svg.hashsalt": name}):
        canvas: Any = FigureCanvasSVG(figure)
        layout = figure.get_layout_engine()
        if layout is not None:  # `savefig` would draw everything twice for its sake
            layout.execute(figure)
            figure.set_layout_engine("none")
        canvas.print_svg(text, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    element = text.getvalue()[text.getvalue().index("<svg") :]
    element = re.sub(r"<svg [^>]*?viewBox", '<svg role="img" viewBox', element, count=1)
    # Fonts are the page's; ids of groups would repeat from plot to plot.
    element = re.sub(r"font-family: [^;\"]*;? ?", "", element)
    element = re.sub(r'<g id="[^"]*"', "<g", element)
    for colour, variable in VARIABLES.items():
        element = element.replace(colour, f"var({variable})")
    return element


def save_png(figure: Figure, path: Path, dpi: int = 160) -> None:
    """The figure on paper white, written whole or not at all."""
    picture = io.BytesIO()
    nothing: Any = {"Software": None}
    FigureCanvasAgg(figure)
    figure.savefig(picture, format="png", dpi=dpi, facecolor=PAPER, metadata=nothing)
    write_atomically(path, picture.getvalue())
