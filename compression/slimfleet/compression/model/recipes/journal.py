"""Journal of a search: what was measured is kept in a file, line by line, so that an interrupted search goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.evaluation.measuring import Measured
from slimfleet.compression.model.technique import Curve, Plot

__all__ = ["Journal"]


class Journal:
    """Recipes that were tried, in a file of one JSON object a line; a line that was cut off counts as none.

    `about` says what the search is of. Raises BadInput where the file is of another one.
    """

    def __init__(self, path: Path | None, about: dict[str, Any]) -> None:
        self._path = path
        self.tried: dict[str, Measured] = {}
        self.plan: dict[str, Any] | None = None
        """What the search settled before it trained anything."""
        self.sensitivity: dict[str, Plot] | None = None
        """What was looked at first, by title."""
        lines = _lines(path) if path is not None and path.exists() else []
        if lines and lines[0].get("about") != about:
            raise BadInput(f"{path} is the journal of another search: give another folder, or remove it")
        for line in lines[1:]:
            if "recipe" in line:
                self.tried[line["recipe"]] = Measured(**line["after"])
            elif "sensitivity" in line:
                self.sensitivity = {title: _plot(each) for title, each in line["sensitivity"].items()}
            else:
                self.plan = line
        if not lines:
            self._add({"about": about})

    def settle(self, plan: dict[str, Any]) -> dict[str, Any]:
        """Keep what was settled; what an earlier run had settled stands."""
        if self.plan is None:
            self.plan = plan
            self._add(plan)
        return self.plan

    def looked(self, plots: Mapping[str, Plot]) -> None:
        """Keep how sensitive the model is."""
        self.sensitivity = dict(plots)
        self._add({"sensitivity": {title: asdict(plot) for title, plot in plots.items()}})

    def done(self, recipe: str, after: Measured) -> None:
        """Keep what came out of a recipe."""
        self.tried[recipe] = after
        self._add({"recipe": recipe, "after": asdict(after)})

    def _add(self, line: dict[str, Any]) -> None:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def _plot(stored: dict[str, Any]) -> Plot:
    curves = [Curve(**{**each, "x": tuple(each["x"]), "y": tuple(each["y"])}) for each in stored["curves"]]
    return Plot(**{**stored, "curves": tuple(curves)})


def _lines(path: Path) -> list[dict[str, Any]]:
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break  # what was being written when the search was interrupted
    return lines
