"""A coordinator's settings in a TOML file: the fields of `CoordinatorSettings`, its nested settings as tables."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slimfleet.compression import BadInput
from slimfleet.compression.cost import RUNTIMES
from slimfleet.compression.edge.checked import checked
from slimfleet.coordinator.planning import POLICIES as PLANNERS
from slimfleet.coordinator.planning.selection import POLICIES as SELECTIONS
from slimfleet.coordinator.settings import CoordinatorSettings


def read_settings(path: Path) -> CoordinatorSettings:
    """The settings in a file. Raises BadInput, in one line that names the file, the key and what would be right.

    A budget of a device class (`[class_budgets.phone]`) stands in place of the common one, as a whole.
    """
    source = f"the settings {path}"
    settings = checked(CoordinatorSettings, _tables(path), source)
    _check_listed(source, "planner", settings.planner, PLANNERS)
    _check_listed(source, "selection.policy", settings.selection.policy, SELECTIONS)
    _check_listed(source, "runtime", settings.runtime, RUNTIMES)
    return settings


def _tables(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read the settings {path}: {error.strerror or error}") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise BadInput(f"the settings {path} are not TOML: {error}") from error


def _check_listed(source: str, key: str, name: str, known: Mapping[str, object]) -> None:
    if name not in known:
        raise BadInput(f"{source}: {key} = {name!r}: there are {', '.join(known)}")
