"""Recipes: an ordered list of techniques with their settings, and how people write one down.

    prune: share=0.6, epochs=10; quantise: weights=4, epochs=5; share: values=16

A key is a setting of the technique, or else of its `tuning`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any

from slimfleet.compression.edge.checked import checked
from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.toolbox import TECHNIQUES
from slimfleet.compression.model.training.tuning import Tuning

__all__ = ["Recipe", "Step", "recipe_of"]

_TUNING = {each.name for each in fields(Tuning)}


@dataclass(frozen=True, slots=True)
class Step:
    """One technique with its settings."""

    technique: str
    """Its name in `TECHNIQUES`."""
    settings: Any

    def __str__(self) -> str:
        """The step as it is written, settings that differ from the defaults alone."""
        told = _told(self.settings, type(self.settings)())
        return f"{self.technique}: {', '.join(told)}" if told else self.technique


@dataclass(frozen=True, slots=True)
class Recipe:
    """Techniques in the order in which they are applied.

    Raises BadInput where layers would change after their weights have been zeroed, shared or rounded.
    """

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        seen = None
        for step in self.steps:
            stage = TECHNIQUES[step.technique].stage
            if stage == "structure" and seen is not None:
                raise BadInput(
                    f"recipe: {step.technique} changes layers and comes after {seen}, which fixes their weights: "
                    f"put it before"
                )
            seen = step.technique if stage == "weights" else seen

    def __str__(self) -> str:
        """The recipe as it is written."""
        return "; ".join(map(str, self.steps))


def recipe_of(text: str) -> Recipe:
    """The recipe that `text` describes. Raises BadInput, in one line, for what it does not understand."""
    steps = [_step(part.strip()) for part in text.split(";") if part.strip()]
    if not steps:
        raise BadInput("recipe: it is empty, give techniques such as 'prune: share=0.5; quantise: weights=8'")
    return Recipe(tuple(steps))


def _step(text: str) -> Step:
    name, _, rest = text.partition(":")
    name = name.strip()
    if name not in TECHNIQUES:
        near = get_close_matches(name, TECHNIQUES, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(TECHNIQUES)}"
        raise BadInput(f"recipe: there is no technique {name!r}: {hint}")
    usual = getattr(TECHNIQUES[name].settings(), "tuning", None)
    own = {each.name for each in fields(TECHNIQUES[name].settings)}
    values: dict[str, Any] = {}
    for pair in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals:
            raise BadInput(f"recipe: {name}: {pair!r} must be key=value")
        place = (
            values.setdefault("tuning", asdict(usual) if usual else {}) if key in _TUNING - own else values
        )
        place[key] = _value(value)
    return Step(name, checked(TECHNIQUES[name].settings, values, f"recipe: {name}"))


def _value(text: str) -> Any:
    for reading in (json.loads, float):
        try:
            return reading(text)
        except ValueError:
            continue
    return text


def _told(settings: Any, default: Any) -> list[str]:
    told = []
    for each in fields(settings):
        value, usual = getattr(settings, each.name), getattr(default, each.name)
        if isinstance(value, Tuning):
            told += _told(value, usual)
        elif value != usual:
            told.append(f"{each.name}={value if isinstance(value, str) else json.dumps(value)}")
    return told
