"""Scenario files: a TOML file and `--set` options become a frozen, validated `Scenario`; anything wrong is BadInput."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimfleet.compression.edge.checked import Source, checked, named, refuse_renamed, refuse_unlisted
from slimfleet.compression.edge.input_files import read_toml
from slimfleet.compression.edge.named import is_own
from slimfleet.compression.edge.task_loader import existing_folders, load_task, make_importable
from slimfleet.compression.errors import BadInput
from slimfleet.compression.foreign_text import foreign_text
from slimfleet.compression.profiles import load_profiles
from slimfleet.coordinator.settings import (
    RENAMED,
    CoordinatorSettings,
    PacingSettings,
    ServerSettings,
    settings_of,
)
from slimfleet.simulations.fedscale import LIKE
from slimfleet.simulations.population import INFINITE, check_fleet
from slimfleet.simulations.settings import FleetSettings, RunSettings, Scenario, TaskSettings

if TYPE_CHECKING:
    from slimfleet.compression.checked_task import CheckedTask

__all__ = [
    "DEFAULT",
    "baseline_settings",
    "build_task_of",
    "folder_name",
    "load_scenario",
    "scenario_lines",
    "scenario_names",
    "scenario_with",
]

DEFAULT = "digits"

_SHIPPED = Path(__file__).parent / "scenarios"
"""The scenarios that ship with slimfleet, one TOML file each."""


def scenario_names() -> list[str]:
    """Names of the scenarios that ship with slimfleet."""
    return sorted(path.stem for path in _SHIPPED.glob("*.toml"))


def scenario_lines() -> dict[str, str]:
    """Name of each shipped scenario -> what it is: the first line of its file."""
    texts = {name: (_SHIPPED / f"{name}.toml").read_text(encoding="utf-8") for name in scenario_names()}
    return {name: text.partition("\n")[0].removeprefix("# ") for name, text in texts.items()}


def load_scenario(path_or_name: str = DEFAULT, overrides: Mapping[str, str] | None = None) -> Scenario:
    """Read a scenario by the name of a shipped one or by the path of a TOML file.

    `overrides` maps dotted keys to TOML values (`{"fleet.devices": "50", "task.name": "digits"}`; a bare word
    is a string).

    Raises BadInput, in one line that names the file or option, the key, the value and what would be right.
    """
    overrides = overrides or {}
    values = {key: _value(key, text) for key, text in overrides.items()}
    return scenario_with(path_or_name, values, lambda key: f"--set {foreign_text(key, 100)}")


def scenario_with(
    path_or_name: str, values: Mapping[str, Any], origin: Callable[[str], str], beside: Path = Path()
) -> Scenario:
    """The scenario of `load_scenario`, with `values` at their dotted keys; messages call the origin of a key
    `origin(key)`. A path is relative to the folder `beside`."""
    path = _find(path_or_name, beside)
    tables = read_toml(path, f"the scenario {path}")
    tables.setdefault("name", path.stem)
    for key, value in values.items():
        _assign(tables, key, value, origin(key))

    options = f" (with {foreign_text(', '.join(map(origin, values)), 200)})" if values else ""

    def source(key: str) -> str:
        given = [name for name in values if f"{key}.".startswith(f"{name}.") or name.startswith(f"{key}.")]
        return origin(given[0]) if given else f"scenario {path}{options}"

    scenario = _resolved(tables, source)
    check_fleet(scenario.fleet, source)
    _check_together(scenario, source)
    is_own_place = path.parent == _SHIPPED or "task.import_from" in values
    beside = Path() if is_own_place else path.parent
    return _with_folders(_with_files(scenario, beside), beside)


def folder_name(name: str) -> str:
    """The name of a scenario as that of one folder: letters, digits, `_`, `.` and `-`, with a letter or digit first."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-._")[:64] or "run"


def build_task_of(scenario: Scenario) -> CheckedTask:
    """The scenario's task, its examples spread over the fleet; every process that trains builds it."""
    from slimfleet.client.tasks import TASKS  # loads torch, which reading a scenario does not need

    task, seed = scenario.task, scenario.coordinator.seed
    make_importable(task.import_from)
    options = {"alpha": task.alpha, **task.options}
    return load_task(task.name, TASKS, partitions=scenario.partitions, seed=seed, options=options)


def _resolved(tables: Mapping[str, Any], source: Source) -> Scenario:
    refuse_renamed(tables, RENAMED, source)
    own = {"task": TaskSettings, "fleet": FleetSettings, "run": RunSettings}
    known = Scenario().tables()
    parts: dict[str, Any] = {
        name: checked(
            kind, tables.get(name, {}), source, name, root=known, infinite=("task.alpha", *INFINITE)
        )
        for name, kind in own.items()
    }
    shared = {name: value for name, value in tables.items() if name not in own}
    return Scenario(**parts, coordinator=settings_of(shared, source, others=known))


def _check_together(scenario: Scenario, source: Source) -> None:
    """Refuse a budget for a class that has no device profile, and rounds larger than the fleet."""
    classes = {row.device_class for row in load_profiles()}
    refuse_unlisted(scenario.coordinator.budget.by_class, classes, source, "budget.class")
    minimum = scenario.coordinator.selection.min_devices
    if minimum > scenario.fleet.devices:
        raise BadInput(
            f"{named(source, 'selection.min_devices')}: selection.min_devices = {minimum} is more than "
            f"fleet.devices = {scenario.fleet.devices}: no round would begin"
        )
    per_round, devices = scenario.coordinator.selection.per_round, scenario.fleet.devices
    if per_round > devices:
        raise BadInput(
            f"{named(source, '')}: selection.per_round = {per_round} is more than fleet.devices = {devices}: "
            "lower the one or raise the other"
        )


def _with_files(scenario: Scenario, beside: Path) -> Scenario:
    """The same scenario, with the paths of FedScale's files in full."""

    def in_full(path: str) -> str:
        return path if path in ("profiles", "share", LIKE) else str((beside / path).absolute())

    fleet = scenario.fleet
    capacity, presence = in_full(fleet.capacity), in_full(fleet.presence)
    return replace(scenario, fleet=replace(fleet, capacity=capacity, presence=presence))


def _with_folders(scenario: Scenario, beside: Path) -> Scenario:
    """The same scenario, with the folders of a user's own code in full.

    Workers in other processes and a resumed run, which reads the resolved scenario, then find the same code.
    """
    coordinator = scenario.coordinator
    policies = (coordinator.planner.policy, coordinator.selection.policy, coordinator.server.optimizer)
    if not any(map(is_own, (scenario.task.name, *policies))):
        return scenario
    given = [beside / folder for folder in scenario.task.import_from]
    folders = existing_folders(given or [beside, Path()])
    return replace(scenario, task=replace(scenario.task, import_from=folders))


def _find(path_or_name: str, beside: Path) -> Path:
    """A shipped scenario of that name, or a file at that path; a path always has a suffix or a slash."""
    name = path_or_name.replace("-", "_")
    if name in scenario_names():
        return _SHIPPED / f"{name}.toml"
    path = beside / path_or_name
    if path.exists() or path.suffix or len(Path(path_or_name).parts) > 1:
        return path
    near = "".join(f"; did you mean {close!r}?" for close in get_close_matches(name, scenario_names(), n=1))
    raise BadInput(
        f"no scenario is called {path_or_name!r}{near}; "
        f"give one of {', '.join(scenario_names())}, or the path of a TOML file"
    )


def _value(key: str, text: str) -> Any:
    """The value of `--set key=text`: TOML, or a bare word or path as a string."""
    given = foreign_text(" ".join(f"--set {key}={text}".split()), 100)
    try:
        parsed = tomllib.loads(f"value = {text}")
    except RecursionError as error:
        raise BadInput(f"{given}: the value is nested too deep") from error
    except ValueError as error:
        if text and not set(text) & set("\"'[]{}=,\n"):
            return text
        raise BadInput(f"{given}: the value is not TOML: {error}") from error
    if parsed.keys() != {"value"}:
        raise BadInput(f"{given}: give one value")
    return parsed["value"]


def _assign(tables: dict[str, Any], key: str, value: Any, origin: str) -> None:
    """Put `value` at the dotted `key`, making tables on the way."""
    *path, leaf = key.split(".")
    table = tables
    for depth, step in enumerate(path, start=1):
        table = table.setdefault(step, {})
        if not isinstance(table, dict):
            raise BadInput(f"{origin}: {'.'.join(path[:depth])} is a value, not a table")
    table[leaf] = value


def baseline_settings(scenario: Scenario) -> CoordinatorSettings:
    """The scenario's settings without budgets: random devices train the whole model for one epoch, sent in float32, and
    every round waits for all of them.

    Updates count as they come: the rival is not held back by bounds against hostile devices.
    The limits stay, so that the rounds that break them are counted; the plans ignore them.
    """
    ours = scenario.coordinator
    return replace(
        ours,
        name="baseline",
        rounds=scenario.run.baseline_rounds,
        selection=replace(ours.selection, policy="uniform", battery_floor=0.0, reputation=False),
        pacing=PacingSettings(),
        planner=replace(
            ours.planner, policy="fixed", widths=(1.0,), batch_sizes=ours.planner.batch_sizes[:1]
        ),
        codec=replace(ours.codec, feedback=False),
        server=ServerSettings(max_update_norm=ours.server.max_update_norm, fleet_bounds=False),
    )
