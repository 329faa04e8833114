"""Technique seam: one way to make a model small, as a function with settings, and what it says about its work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.slim_model import SlimModel

__all__ = ["Apply", "Curve", "LayerChange", "Plot", "Stage", "Technique", "TechniqueReport"]

Stage = Literal["structure", "weights", "anywhere"]
"""`structure` changes layers and shapes, and comes before `weights`, which zeroes, shares or rounds them."""


@dataclass(frozen=True, slots=True)
class LayerChange:
    """What became of one layer or tensor."""

    layer: str
    change: str
    """A short clause, as in `64 -> 23 channels`."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A measured curve, for the report: the sensitivity of a layer, a search for a threshold."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    joined: bool = True
    """Whether a line goes from point to point."""


@dataclass(frozen=True, slots=True)
class Plot:
    """Curves that share their axes."""

    x: str
    y: str
    """What the axes show, in words with the unit."""
    curves: tuple[Curve, ...]
    limit: float | None = None
    """The most that x may be, where something bounds it."""


@dataclass(frozen=True, slots=True)
class TechniqueReport:
    """What a technique did."""

    changed: tuple[LayerChange, ...] = ()
    whole: tuple[LayerChange, ...] = ()
    """Layers that it left as they are, and why."""
    plots: Mapping[str, Plot] = field(default_factory=dict)
    """By title."""
    steps: int = 0
    """Steps of training."""


class Apply(Protocol):
    """A technique's function."""

    def __call__(
        self, slim: SlimModel, central: CentralTask, settings: Any, /
    ) -> tuple[SlimModel, TechniqueReport]:
        """A new model, and what was done; `slim` stays as it is."""
        ...


@dataclass(frozen=True, slots=True)
class Technique:
    """A technique's line in the table."""

    summary: str
    """One line, for people who choose."""
    stage: Stage
    settings: type[Any]
    """A frozen dataclass: defaults, ranges and docstrings."""
    apply: Apply
