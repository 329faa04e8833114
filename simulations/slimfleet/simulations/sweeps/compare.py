"""Comparison of finished runs, from their folders: which of them are points, and what makes them hard to compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slimfleet.compression.errors import BadInput
from slimfleet.compression.validation import shortened
from slimfleet.simulations.results_folder import leaves
from slimfleet.simulations.scenario import load_scenario
from slimfleet.simulations.sweeps.cells import labels_of
from slimfleet.simulations.sweeps.folders import finished_run
from slimfleet.simulations.sweeps.outcomes import Comparison, Finished, Point
from slimfleet.simulations.sweeps.outputs import write_comparison

__all__ = ["compare_runs"]

TASK = ("task.name", "task.options")
"""Keys in which runs must not differ: accuracies of different tasks say nothing of each other."""
SCALE = ("rounds", "fleet.devices", "task.alpha", "evaluation.on_devices")
"""Keys that make totals or accuracies differ before anything else does."""
NO_SETTING = (
    "name",
    "seed",
    "task.import_from",
    "run.workers",
    "run.device_timeout_s",
    "run.baseline_rounds",
)
"""Keys that make no point of its own."""


def compare_runs(folders: Sequence[Path], out: Path) -> Comparison:
    """Compare finished runs and write `compare.csv` and `report.html` into `out`.

    Raises BadInput where a folder holds no finished run, where one is given twice, or where their tasks differ.
    """
    if len({folder.resolve() for folder in folders}) < 2 or len(set(folders)) < len(folders):
        raise BadInput("compare takes two or more folders of finished runs, each once")
    runs = [finished_run(folder, str(folder)) for folder in folders]
    settings = [_settings(folder) for folder in folders]
    _refuse_other_tasks(runs, settings)
    keys = list(dict.fromkeys(key for each in settings for key in each))
    differing = [
        key for key in keys if key not in NO_SETTING and len({_said(each, key) for each in settings}) > 1
    ]
    points = _points(runs, [{key: each.get(key) for key in differing} for each in settings])
    comparison = Comparison(
        title="Comparison of runs",
        about=f"{len(runs)} runs of {settings[0]['task.name']}",
        points=points,
        notes=tuple(_notes(runs, settings, differing)),
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
    if not any(varied):
        labels = [str(runs[0].summary["scenario"])]
    return tuple(
        Point(label=label, varied=varied[group[0]], runs=tuple(runs[index] for index in group))
        for label, group in zip(labels, groups.values(), strict=True)
    )


def _notes(
    runs: Sequence[Finished], settings: Sequence[Mapping[str, Any]], differing: Sequence[str]
) -> list[str]:
    """What to know before the numbers are compared."""
    notes = []
    for key in SCALE:
        if key in differing:
            values = ", ".join(dict.fromkeys(_said(each, key) for each in settings))
            notes.append(f"The runs differ in {key} ({values}): compare their totals with care.")
    return notes
