"""Read a scenario file and `--set` options into frozen, validated settings; anything wrong is BadInput."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from slimfleet.compression.edge.import_path import existing_folders
from slimfleet.compression.errors import BadInput
from slimfleet.simulations.profiles import load_profiles
from slimfleet.simulations.settings import Limits, Scenario

SCENARIOS = Path(__file__).parent / "scenarios"
"""The scenarios that ship with slimfleet, one TOML file each."""

DEFAULT = "digits"

WANTED = {
    "model_type": "must be a table",
    "dict_type": "must be a table",
    "tuple_type": "must be a list",
    "too_short": "must have at least one value",
}
"""What is said instead of pydantic's words about Python types."""


def scenario_names() -> list[str]:
    """Names of the scenarios that ship with slimfleet."""
    return sorted(path.stem for path in SCENARIOS.glob("*.toml"))


def load_scenario(path_or_name: str = DEFAULT, overrides: Mapping[str, str] | None = None) -> Scenario:
    """Read a scenario by the name of a shipped one or by the path of a TOML file.

    `overrides` maps dotted keys to TOML values (`{"fleet.devices": "50", "task.name": "digits"}`; a bare word
    is a string).

    Raises BadInput, in one line that names the file or option, the key, the value and what would be right.
    """
    path = _find(path_or_name)
    tables = _read(path)
    tables.setdefault("name", path.stem)
    overrides = overrides or {}
    for key, text in overrides.items():
        _assign(tables, key, _value(key, text))
    try:
        scenario = Scenario.model_validate(tables)
    except ValidationError as error:
        raise BadInput(_explain(error, path, overrides)) from None
    rows = load_profiles()
    source = _source(path, overrides)
    _check_known(source, "fleet.mix", scenario.fleet.mix, {row.name for row in rows})
    _check_known(source, "budget.class", scenario.budget.by_class, {row.device_class for row in rows})
    beside = Path() if path.parent == SCENARIOS or "task.import_from" in overrides else path.parent
    return _with_folders(scenario, beside)


def _with_folders(scenario: Scenario, beside: Path) -> Scenario:
    """The same scenario, which says in full where the code of a task of one's own is.

    Workers in other processes and a resumed run, which reads the resolved scenario, then find the same code.
    """
    if ":" not in scenario.task.name:
        return scenario
    given = [beside / folder for folder in scenario.task.import_from]
    folders = existing_folders(given or [beside, Path()])
    return scenario.model_copy(update={"task": scenario.task.model_copy(update={"import_from": folders})})


def _find(path_or_name: str) -> Path:
    """A shipped scenario of that name, or a file at that path; a path always has a suffix or a slash."""
    name = path_or_name.replace("-", "_")
    if name in scenario_names():
        return SCENARIOS / f"{name}.toml"
    path = Path(path_or_name)
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path
    raise BadInput(
        f"no scenario is called {path_or_name!r}{_nearest(path_or_name, scenario_names())}; "
        f"give one of {', '.join(scenario_names())}, or the path of a TOML file"
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read the scenario {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"the scenario {path} is not text in UTF-8 (byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"the scenario {path} is not TOML: {error}") from error


def _value(key: str, text: str) -> Any:
    """The value of `--set key=text`: TOML, or a bare word or path as a string."""
    given = " ".join(f"--set {key}={text}".split())
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        if text and not set(text) & set("\"'[]{}=,\n"):
            return text
        raise BadInput(f"{given}: the value is not TOML: {error}") from error
    if parsed.keys() != {"value"}:
        raise BadInput(f"{given}: give one value")
    return parsed["value"]


def _assign(tables: dict[str, Any], key: str, value: Any) -> None:
    """Put `value` at the dotted `key`, making tables on the way."""
    *path, leaf = key.split(".")
    table = tables
    for depth, step in enumerate(path, start=1):
        table = table.setdefault(step, {})
        if not isinstance(table, dict):
            raise BadInput(f"--set {key}: {'.'.join(path[:depth])} is a value, not a table")
    table[leaf] = value


def _explain(error: ValidationError, path: Path, overrides: Mapping[str, str]) -> str:
    """The first problem in one line, and how many others there are."""
    first, *rest = error.errors(include_url=False)
    # A list with a bad item is reported again as a list; that is no other problem.
    others = sum(other["loc"] != first["loc"][: len(other["loc"])] for other in rest)
    more = f" (and {others} more)" if others else ""
    steps = [str(step) for step in first["loc"]]
    key = ".".join(steps)
    given = [name for name in overrides if key == name or key.startswith(f"{name}.")]
    source = f"--set {given[0]}" if given else _source(path, overrides)
    if first["type"] == "extra_forbidden":
        return f"{source}: unknown key {key!r}{_suggest(steps)}{more}"
    if first["type"] == "value_error":
        return f"{source}: {first['msg'].removeprefix('Value error, ')}{more}"
    wanted = WANTED.get(first["type"]) or first["msg"].replace("Input should be", "must be", 1)
    return f"{source}: {key} = {_shorten(first['input'])}: {wanted}{more}"


def _source(path: Path, overrides: Mapping[str, str]) -> str:
    options = f" (with --set {', '.join(overrides)})" if overrides else ""
    return f"scenario {path}{options}"


def _shorten(value: Any, most: int = 60) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= most else f"{text[:most]}..."


def _suggest(steps: list[str]) -> str:
    """What the person may have meant: a near key of the same table, or the same key of another one."""
    *path, leaf = steps
    table = ".".join(path)
    siblings = list(Limits.model_fields) if table.startswith("budget.class.") else _keys(table)
    near = _nearest(leaf, siblings, table)
    if near:
        return near
    elsewhere = [f"{name}.{leaf}" for name in _keys("") if leaf in _keys(name)]
    if elsewhere:
        return f"; did you mean {elsewhere[0]!r}?"
    return f"; {table or 'a scenario'} takes {', '.join(siblings)}"


def _keys(table: str) -> list[str]:
    """The keys of a table of the scenario, "" for the top; none where `table` is a plain value."""
    model: object = Scenario.model_fields[table].annotation if table else Scenario
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _nearest(word: str, known: Collection[str], table: str = "") -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {'.'.join(filter(None, [table, close[0]]))!r}?" if close else ""


def _check_known(source: str, key: str, names: Collection[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise BadInput(
                f"{source}: {key} has no {name!r}{_nearest(name, known)}; "
                f"there are {', '.join(sorted(known))}"
            )
