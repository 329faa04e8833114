"""What a person hands to the coordinator's command, read once and checked: tasks and device profiles."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from slimfleet.compression import BadInput, DeviceProfile, Task
from slimfleet.compression.task import resolve

_PROFILE = TypeAdapter(DeviceProfile)
_FIELDS = frozenset(field.name for field in fields(DeviceProfile))


def task_from(reference: str, options: Mapping[str, Any]) -> Task:
    """The task that `module:object` is, or that calling it with partitions=1, seed=0 and the options gives.

    Raises BadInput for a short name, which only devices and simulations know, and for what cannot be loaded.
    """
    if ":" not in reference:
        raise BadInput(
            f"{reference!r} is a short name, and the coordinator takes module:object: "
            f"for example slimfleet.client.tasks:Digits or slimfleet.client.tasks:FashionMnist"
        )
    found = resolve(reference)
    if callable(found):
        arguments = {"partitions": 1, "seed": 0, **options}
        try:
            inspect.signature(found).bind(**arguments)
        except TypeError as error:
            raise BadInput(f"{reference!r} does not take {', '.join(arguments)}: {error}") from error
        found = found(**arguments)
    if not hasattr(found, "build_model"):
        raise BadInput(f"{reference!r} gives a {type(found).__name__}, which has no build_model: not a task")
    return cast(Task, found)


def read_profiles(path: Path) -> list[DeviceProfile]:
    """The device profile in a JSON file, or the list of them, as `slimfleet-device profile --json` prints it.

    Raises BadInput naming the file and what is wrong in it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except OSError as error:
        raise BadInput(f"cannot read the profile {path}: {error.strerror}") from error
    except ValueError as error:
        raise BadInput(f"the profile {path} is not JSON: {error}") from error
    return [_profile(values, path) for values in (content if isinstance(content, list) else [content])]


def _profile(values: object, path: Path) -> DeviceProfile:
    unknown = sorted(values.keys() - _FIELDS) if isinstance(values, dict) else []
    if unknown:
        raise BadInput(
            f"the profile {path} has the unknown field {unknown[0]!r}; there are {', '.join(sorted(_FIELDS))}"
        )
    try:
        return _PROFILE.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "profile"
        raise BadInput(f"the profile {path} is not right: {place}: {first['msg']}") from None


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a finite number")
