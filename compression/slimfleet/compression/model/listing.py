"""Listing of the techniques: settings, defaults and ranges, read from their dataclasses."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from slimfleet.compression.model.toolbox import TECHNIQUES

__all__ = ["listing"]

_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def listing() -> list[dict[str, Any]]:
    """For each technique its name, summary, stage and settings, each with default and range."""
    return [
        {
            "name": name,
            "summary": technique.summary,
            "stage": technique.stage,
            "settings": _settings(technique.settings),
        }
        for name, technique in TECHNIQUES.items()
    ]


def _settings(kind: type[Any]) -> list[dict[str, Any]]:
    hints, defaults = get_type_hints(kind, include_extras=True), kind()
    rows = []
    for each in fields(kind):
        value = getattr(defaults, each.name)
        if each.name == "tuning":
            rows += [row | {"default": getattr(value, row["name"])} for row in _settings(type(value))]
        else:
            rows.append({"name": each.name, "default": value, "range": _range(hints[each.name])})
    return rows


def _range(hint: Any) -> str:
    """The type of a setting in a few words, with its bounds."""
    if get_origin(hint) is Literal:
        return " | ".join(map(str, get_args(hint)))
    if type(None) in get_args(hint):
        kinds = [each for each in get_args(hint) if each is not type(None)]
        return f"{' | '.join(map(_range, kinds))}, or none"
    bounds = [
        f"{sign} {getattr(bound, name):g}"
        for bound in getattr(hint, "__metadata__", ())
        for name, sign in _SIGNS.items()
        if hasattr(bound, name)
    ]
    plain = get_args(hint)[0] if bounds or hasattr(hint, "__metadata__") else hint
    name = getattr(plain, "__name__", str(plain).replace("typing.", ""))
    return " ".join([name, *bounds])
