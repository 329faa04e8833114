"""Comparison of finished runs, from their folders: which of them are points, and what makes them hard to compare."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slimfleet.compression.errors import BadInput
from slimfleet.compression.validation import shortened
from slimfleet.simulations.results_folder import leaves
from slimfleet.simulations.scenario import load_scenario
from slimfleet.simulations.sweeps.cells import labels_of
from slimfleet.simulations.sweeps.folders import finished_run
from slimfleet.simulations.sweeps.outcomes import Comparison, Finished, Point, scale_notes
from slimfleet.simulations.sweeps.outputs import write_comparison

__all__ = ["compare_runs"]

TASK = ("task.name", "task.options")
"""Keys in which runs must not differ: accuracies of different tasks say nothing of each other."""
SPLIT = ("task.alpha", "evaluation.on_devices")
"""Keys that change on which data devices train and are judged."""
NO_SETTING = ("name", "seed", "task.import_from")
"""Keys that make no point of its own, beside those of `[run]`."""
MOST_IN_NAMES = 3
"""Settings that the name of a point may tell; with more, it is called by its folder."""


def compare_runs(folders: Sequence[Path], out: Path) -> Comparison:
    """Compare finished runs and write `compare.csv` and `report.html` into `out`.

    Raises BadInput where a folder holds no finished run, where one is given twice, or where their tasks differ.
    """
    if len({folder.resolve() for folder in folders}) < 2 or len(set(folders)) < len(folders):
        raise BadInput("compare takes two or more folders of finished runs, each once")
    runs = [finished_run(folder, name, out) for folder, name in zip(folders, _names(folders), strict=True)]
    settings = [_settings(folder) for folder in folders]
    _refuse_other_tasks(runs, settings)
    keys = list(dict.fromkeys(key for each in settings for key in each))
    differing = [
        key
        for key in keys
        if key not in NO_SETTING
        and not key.startswith("run.")
        and len({_said(each, key) for each in settings}) > 1
    ]
    points = _points(runs, [{key: each.get(key) for key in differing} for each in settings])
    comparison = Comparison(
        title="Comparison of runs",
        about=f"{len(runs)} runs of {settings[0]['task.name']}",
        points=points,
        notes=_notes(points, differing),
        source="\n".join(map(str, folders)),
    )
    write_comparison(out, "compare.csv", comparison)
    return comparison


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "scenario.toml"
    if not path.is_file():
        raise BadInput(f"{folder} holds no scenario.toml: what its run was is not known")
    return dict(leaves(load_scenario(str(path)).tables()))


def _said(settings: Mapping[str, Any], key: str) -> str:
    return shortened(settings.get(key)) if key in settings else "missing"


def _refuse_other_tasks(runs: Sequence[Finished], settings: Sequence[Mapping[str, Any]]) -> None:
    first, *others = zip(runs, settings, strict=True)
    for run, own in others:
        for key in own.keys() | first[1].keys():
            if key.startswith(TASK) and own.get(key) != first[1].get(key):
                raise BadInput(
                    f"{run.folder} has {key} = {_said(own, key)}, {first[0].folder} has {_said(first[1], key)}: "
                    "accuracies of different tasks cannot be compared"
                )


def _points(runs: Sequence[Finished], varied: Sequence[Mapping[str, Any]]) -> tuple[Point, ...]:
    """Runs with the same settings together, in the order given."""
    groups: dict[str, list[int]] = {}
    for index, own in enumerate(varied):
        groups.setdefault(repr(own), []).append(index)
    firsts = [group[0] for group in groups.values()]
    labels = labels_of([varied[first] for first in firsts])
    if max(map(len, varied)) > MOST_IN_NAMES or len(groups) == 1 or len(set(labels)) < len(groups):
        labels = [
            runs[group[0]].name + (f" and {len(group) - 1} more" if len(group) > 1 else "")
            for group in groups.values()
        ]
    return tuple(
        Point(
            label=label,
            settings=varied[group[0]],
            varied=varied[group[0]] if len(varied[group[0]]) <= MOST_IN_NAMES else {},
            runs=tuple(runs[index] for index in group),
        )
        for label, group in zip(labels, groups.values(), strict=True)
    )


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders without what they all begin with."""
    common = Path(os.path.commonpath([folder.resolve() for folder in folders]))
    return [str(folder.resolve().relative_to(common)) for folder in folders]


def _notes(points: Sequence[Point], differing: Sequence[str]) -> tuple[str, ...]:
    """What to know before the numbers are compared."""
    others = [
        f"The runs differ in {key}: accuracies are of other splits of the data."
        for key in SPLIT
        if key in differing
    ]
    return (*scale_notes(points), *others)
