"""Page of a comparison: one HTML file with its tables and plots."""

from __future__ import annotations

from urllib.parse import quote

from slimfleet.compression.reporting import units
from slimfleet.compression.reporting.markup import details, escape, figure, table
from slimfleet.compression.reporting.page import page, plots_possible, versions
from slimfleet.compression.validation import shortened
from slimfleet.simulations.sweeps.outcomes import Comparison, Point, score_of
from slimfleet.simulations.sweeps.tables import broken_budgets, point_cells

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
        f'<p class="notice">{escape(notice)}</p>'
        for notice in (*comparison.notes, *broken_budgets(comparison), *failures)
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
        + '<p class="note">Means over the runs of a point, which differ in nothing but the seed; ± is their '
        "sample standard deviation, in points of accuracy or as a share of a cost. Accuracy: mean of the last five "
        "rounds.</p>" + _settings(comparison)
    )


def _plots(comparison: Comparison) -> str:
    if not comparison.runs or not plots_possible("simulation"):
        return ""
    from slimfleet.simulations.sweeps.plots import COSTS, numeric_keys, panels_of  # loads matplotlib

    panels, score = panels_of(comparison), score_of(comparison)
    judged = "Accuracy" if score.is_accuracy else "Loss"
    source = ", ".join(sorted({str(run.summary.get("energy_source", "unknown")) for run in comparison.runs}))
    titles = {cost: f"{judged} by {words}" for cost, (words, _) in COSTS.items()}
    titles["energy_j"] += f" ({source})"
    fronts = (
        "Numbers are those of the table, bars one standard deviation over seeds, the line the Pareto front."
    )
    figures = [figure(title, panels[cost], fronts) for cost, title in titles.items()]
    figures.append(figure(f"{judged} by round", panels["rounds"], "Mean over seeds, and their range."))
    figures += [
        figure(f"{judged} by {key}", panels[key], "Mean and standard deviation over seeds.")
        for key in numeric_keys(comparison)
    ]
    return f'<h2>What it cost</h2><div class="plots">{"".join(figures)}</div>'


def _settings(comparison: Comparison) -> str:
    """What the points set, beside each other; empty where that is all in their names."""
    keys = list(dict.fromkeys(key for point in comparison.points for key in point.settings))
    if not keys:
        return ""
    rows = [
        (
            key,
            *(
                shortened(point.settings[key]) if key in point.settings else units.UNKNOWN
                for point in comparison.points
            ),
        )
        for key in keys
    ]
    heads = ("key", *map(str, range(1, len(comparison.points) + 1)))
    return details("What each point sets", table(heads, rows))


def _every_run(comparison: Comparison) -> str:
    """Each run on a line, with the way to its own page."""
    if not comparison.runs:
        return ""
    score = score_of(comparison)
    alone = [Point(label=run.name, settings={}, varied={}, runs=(run,)) for run in comparison.runs]
    cells = [point_cells(point, score) for point in alone]
    rows = [(point.label, *own.values()) for point, own in zip(alone, cells, strict=True)]
    links = "".join(
        f'<li><a href="{escape(quote(run.report))}">{escape(run.name)}</a></li>'
        for run in comparison.runs
        if run.report
    )
    return details("Every run in numbers", table(("run", *cells[0]), rows)) + details(
        "The reports of the runs", f"<ul>{links}</ul>"
    )


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
