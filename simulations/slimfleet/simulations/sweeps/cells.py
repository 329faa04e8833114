"""Cells of a sweep: one run each, its scenario resolved, in a folder that is named by what makes it differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import xxhash

from slimfleet.compression.errors import BadInput
from slimfleet.compression.validation import shortened
from slimfleet.simulations.scenario import baseline_settings, folder_name, scenario_with
from slimfleet.simulations.settings import Scenario
from slimfleet.simulations.sweeps.sweep_file import Sweep

__all__ = ["BASELINE", "VARIANT", "Cell", "cells_of", "labels_of"]

VARIANT = "variant"
"""What the varied settings of a point call its variant."""
BASELINE = "FedAvg float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run of a sweep."""

    point: str
    """What its settings are called; cells that differ in nothing but the seed share a point."""
    varied: Mapping[str, Any]
    """Key of the grid -> value, and the variant's name."""
    settings: Mapping[str, Any]
    """Dotted key -> value of all that the point sets."""
    folder: Path
    scenario: Scenario

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.scenario.coordinator.seed

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.point}, seed {self.seed}"


def cells_of(sweep: Sweep, out: Path) -> list[Cell]:
    """Every cell, point by point, with folders under `out`. Raises BadInput for settings that no scenario can have."""
    points = list(_points(sweep))
    labels = labels_of([varied for varied, _ in points])
    if sweep.baseline:
        points.append(({VARIANT: BASELINE}, {}))
        labels.append(BASELINE)
    cells = []
    for label, folder, (varied, own) in zip(labels, _folders(labels), points, strict=True):
        scenario = _scenario(sweep, own)
        if varied.get(VARIANT) == BASELINE:
            scenario = replace(scenario, coordinator=baseline_settings(scenario))
        for seed in sweep.seeds:
            seeded = replace(scenario, coordinator=replace(scenario.coordinator, seed=seed))
            place = out / "cells" / folder / f"seed-{seed}"
            cells.append(Cell(point=label, varied=varied, settings=own, folder=place, scenario=seeded))
    return cells


def labels_of(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each point's varied settings are called, in few words: the last part of a key, where that tells it."""
    keys = {key for varied in points for key in varied}
    last = Counter(key.rpartition(".")[2] for key in keys)

    def said(key: str, value: Any) -> str:
        if key == VARIANT:
            return str(value)
        short = key.rpartition(".")[2]
        return f"{short if last[short] == 1 else key}={value if isinstance(value, str) else shortened(value)}"

    return [" ".join(said(key, value) for key, value in varied.items()) or "as it is" for varied in points]


def _points(sweep: Sweep) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """What is varied, and all of the sweep's own settings, for each point."""
    variants = sweep.variants or {"": {}}
    for (name, settings), *values in product(variants.items(), *sweep.grid.values()):
        chosen = dict(zip(sweep.grid, values, strict=True))
        yield ({VARIANT: name} if name else {}) | chosen, {**settings, **chosen}


def _scenario(sweep: Sweep, own: Mapping[str, Any]) -> Scenario:
    values = {**sweep.set, **own}

    def origin(key: str) -> str:
        value = f" = {shortened(values[key])}" if key in own else ""
        return f"the sweep {sweep.path}, {key}{value}"

    return scenario_with(sweep.scenario, values, origin, Path(sweep.path).parent)


def _folders(labels: Sequence[str]) -> list[str]:
    """A folder name for each label; where that says too little, with a digest of the label."""
    names = [folder_name(label.replace("=", "-")) for label in labels]
    often = Counter(names)
    clear = [len(label) <= len(name) and often[name] == 1 for label, name in zip(labels, names, strict=True)]
    if len(set(labels)) < len(labels):
        raise BadInput(
            f"two points of the sweep are called {Counter(labels).most_common(1)[0][0]!r}: rename one"
        )
    return [
        name if is_clear else f"{name[:50]}-{xxhash.xxh64_hexdigest(label.encode())[:8]}"
        for label, name, is_clear in zip(labels, names, clear, strict=True)
    ]
