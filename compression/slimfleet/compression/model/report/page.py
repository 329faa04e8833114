"""Report page of a compression: what it came to, what each step gave, and how to do it again."""

from __future__ import annotations

from slimfleet.compression.model.compress import Compressed
from slimfleet.compression.model.report import sections
from slimfleet.compression.model.report.searching import search_plots
from slimfleet.compression.model.technique import Plot
from slimfleet.compression.reporting.page import page, plots_possible

__all__ = ["report_html"]


def report_html(compressed: Compressed, command: str = "") -> str:
    """The page as text, without plots where matplotlib is missing; `command` is the line that made it."""
    measured = _plots(compressed)
    panels, drawn = _drawn(compressed, measured)
    body = "\n".join(
        [
            sections.headline(compressed),
            sections.numbers(compressed),
            sections.steps(compressed, panels),
            sections.searched(compressed, drawn["search"]),
            sections.sensitivity(drawn["sensitivity"]),
            sections.looked_at(drawn["steps"]),
            sections.layers(compressed, panels),
            sections.whole(compressed),
            sections.again(compressed, command),
        ]
    )
    return page(f"{compressed.task}, compressed", body)


def _plots(compressed: Compressed) -> dict[str, dict[str, Plot]]:
    """The plots of each section, by title; a title says which step it is of."""
    of_steps = {
        f"{number}. {each.step.technique}: {title}": plot
        for number, each in enumerate(compressed.steps, 1)
        for title, plot in each.report.plots.items()
    }
    return {
        "search": search_plots(compressed),
        "sensitivity": dict(compressed.found.sensitivity),
        "steps": of_steps,
    }


def _drawn(
    compressed: Compressed, plots: dict[str, dict[str, Plot]]
) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """The fixed panels by name, and the plots of each section as SVG; none where matplotlib is missing."""
    if not plots_possible("model"):
        return {}, {section: {} for section in plots}
    from slimfleet.compression.model.report.panels import page_panels, plot_panels  # loads matplotlib

    return page_panels(compressed), {
        section: plot_panels(section, by_title) for section, by_title in plots.items()
    }
