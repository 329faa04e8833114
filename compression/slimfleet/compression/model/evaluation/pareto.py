"""Pareto front: of many models, those that none of the others beats in both cost and error, as a plot."""

from __future__ import annotations

from collections.abc import Iterable

from slimfleet.compression.model.technique import Curve, Plot

__all__ = ["Point", "front_of", "front_plot"]

Point = tuple[float, float]
"""Cost and error of a model; less is better in both."""


def front_of(points: Iterable[Point]) -> list[Point]:
    """The points that no other beats, cheapest first."""
    front: list[Point] = []
    for point in sorted(points):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front


def front_plot(axes: tuple[str, str], tried: Iterable[Point], chosen: Point, limit: float | None) -> Plot:
    """All that were tried, their front, and the chosen one; `axes` are what cost and error are called."""
    points = sorted(tried)
    curves = (
        _curve("tried", points, joined=False),
        _curve("Pareto front", front_of(points), joined=True),
        _curve("chosen", [chosen], joined=False),
    )
    return Plot(*axes, curves, limit)


def _curve(name: str, points: list[Point], *, joined: bool) -> Curve:
    return Curve(name, tuple(x for x, _ in points), tuple(y for _, y in points), joined)
