"""Page of a comparison: one HTML file with its tables and plots."""

from __future__ import annotations

from slimfleet.compression.reporting.markup import details, escape, figure, table
from slimfleet.compression.reporting.page import page, plots_possible, versions
from slimfleet.simulations.sweeps.outcomes import Comparison, numbers_of, score_of
from slimfleet.simulations.sweeps.tables import point_cells

__all__ = ["comparison_html"]


def comparison_html(comparison: Comparison) -> str:
    """The page as text, without plots where matplotlib is missing."""
    body = "\n".join(
        [
            _headline(comparison),
            _points(comparison),
            _plots(comparison),
            _every_run(comparison),
            _provenance(comparison),
        ]
    )
    return page(comparison.title, body)


def _headline(comparison: Comparison) -> str:
    failures = [f"{name} failed: {problem}" for name, problem in comparison.problems.items()]
    return f'<h1>{escape(comparison.title)}</h1><p class="lead">{escape(comparison.about)}.</p>' + "".join(
        f'<p class="notice">{escape(notice)}</p>' for notice in (*comparison.notes, *failures)
    )


def _points(comparison: Comparison) -> str:
    score = score_of(comparison)
    cells = [point_cells(point, score) for point in comparison.points]
    rows = [
        (str(number), point.label, *own.values())
        for number, (point, own) in enumerate(zip(comparison.points, cells, strict=True), start=1)
    ]
    return (
        "<h2>Side by side</h2>"
        + table(("", "settings", *cells[0]), rows, words=(1,))
        + '<p class="note">Means over the runs of a point, which differ in nothing but the seed; ± is the sample '
        "standard deviation.</p>"
    )


def _plots(comparison: Comparison) -> str:
    if not comparison.runs or not plots_possible("simulation"):
        return ""
    from slimfleet.simulations.sweeps.plots import COSTS, panels_of  # loads matplotlib

    panels, score = panels_of(comparison), score_of(comparison)
    judged = "Accuracy" if score.is_accuracy else "Loss"
    sources = sorted({str(run.summary.get("energy_source", "unknown")) for run in comparison.runs})
    extra = {"energy_j": f" ({', '.join(sources)})"}
    figures = [
        figure(
            f"{judged} by {words}{extra.get(cost, '')}",
            panels[cost],
            "Numbers are those of the table, bars one standard deviation over seeds, the line the Pareto front of "
            "the means.",
        )
        for cost, (words, _) in COSTS.items()
    ]
    figures.append(figure(f"{judged} by round", panels["rounds"], "Mean over seeds, and their range."))
    return f'<h2>What it cost</h2><div class="plots">{"".join(figures)}</div>'


def _every_run(comparison: Comparison) -> str:
    keys = list(dict.fromkeys(key for run in comparison.runs for key in numbers_of(run.summary)))
    tables = [
        details(
            run.name,
            table(("", "value"), [(key, f"{value:.6g}") for key, value in numbers_of(run.summary).items()]),
        )
        for run in comparison.runs
    ]
    if not keys:
        return ""
    return "<h2>Every run</h2>" + "".join(tables)


def _provenance(comparison: Comparison) -> str:
    simulated = any(run.summary.get("energy_source") == "simulated" for run in comparison.runs)
    words = "Joules are simulated: no power was measured. " if simulated else ""
    asked = (
        details("What asked for it", f'<pre class="card">{escape(comparison.source)}</pre>')
        if comparison.source
        else ""
    )
    return (
        f"<h2>Where these numbers come from</h2><p>{words}Bytes are counted on the encoded messages.</p>"
        + table(("made with", ""), list(versions().items()), words=(1,))
        + asked
    )
