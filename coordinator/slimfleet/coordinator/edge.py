"""The task that a person names to the coordinator, loaded once and checked."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, cast

from slimfleet.compression import BadInput, Task
from slimfleet.compression.task import resolve


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
