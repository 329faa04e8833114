"""What a search has tried, as plots of cost against accuracy."""

from __future__ import annotations

from slimfleet.compression.model.compress import Compressed
from slimfleet.compression.model.evaluation.measuring import Measured
from slimfleet.compression.model.evaluation.pareto import Point, front_plot
from slimfleet.compression.model.evaluation.threshold import points_lost
from slimfleet.compression.model.target import Target
from slimfleet.compression.model.technique import Plot
from slimfleet.compression.task import Evaluation

__all__ = ["search_plots"]


def search_plots(compressed: Compressed) -> dict[str, Plot]:
    """A plot for the size, and one for each other quantity that has a target; none where nothing was searched for."""
    tried = list(compressed.found.tried.values())
    if not tried:
        return {}
    before, chosen = compressed.before, compressed.steps[-1].after
    limits = {target.quantity: target.limit(before) for target in compressed.request.targets}
    lost = "loss gained" if before.accuracy is None else "points lost"
    plots = {}
    for quantity in dict.fromkeys(("size", *limits)):
        of, limit = Target(quantity), limits.get(quantity)
        name = {"flops": "FLOPs"}.get(quantity, quantity)

        def point(measured: Measured, of: Target = of) -> Point:
            return of.of(measured) / of.of(before), points_lost(_evaluation(measured), _evaluation(before))

        plots[f"{name} against {lost}"] = front_plot(
            (f"{name}, as a share of the model before", f"{lost}, validation"),
            [point(each) for each in (*tried, chosen)],
            point(chosen),
            None if limit is None else limit / of.of(before),
        )
    return plots


def _evaluation(measured: Measured) -> Evaluation:
    return Evaluation(measured.loss, measured.accuracy)
