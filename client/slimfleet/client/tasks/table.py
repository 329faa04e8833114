"""The tasks that slimfleet knows by name, and how to reach any other."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, cast

from slimfleet.client.tasks.digits import Digits
from slimfleet.client.tasks.fashion_mnist import FashionMnist
from slimfleet.compression.errors import BadInput
from slimfleet.compression.task import Task, resolve

TaskFactory = Callable[..., Task]
"""Called as `factory(partitions=..., seed=..., **options)`."""

TASKS: Mapping[str, TaskFactory] = MappingProxyType({"digits": Digits, "fashion-mnist": FashionMnist})

MEMBERS = ("name", "partitions", "build_model", "example_inputs", "load", "loss", "evaluate")


def build_task(name_or_reference: str, partitions: int, seed: int, **options: Any) -> Task:
    """The task called `digits`, `fashion-mnist` or `my_package.my_module:MyTask`, over `partitions` devices.

    A reference names a factory (a class or function) that takes `partitions`, `seed` and the options, all by
    name. Raises BadInput, in one line, when the name is unknown, the reference cannot be loaded or gives no
    task, or an option does not exist.
    """
    factory = _factory(name_or_reference)
    _check_options(name_or_reference, factory, {"partitions", "seed", *options})
    task = factory(partitions=partitions, seed=seed, **options)
    missing = [member for member in MEMBERS if not hasattr(task, member)]
    if missing:
        raise BadInput(
            f"{name_or_reference!r} gives a {type(task).__name__} without {', '.join(missing)}: not a task"
        )
    return task


def _factory(name_or_reference: str) -> TaskFactory:
    if ":" in name_or_reference:
        resolved = resolve(name_or_reference)
        if not callable(resolved):
            raise BadInput(
                f"{name_or_reference!r} is a {type(resolved).__name__}; name a class or function that takes "
                f"partitions and seed and gives a task"
            )
        return cast(TaskFactory, resolved)
    if name_or_reference not in TASKS:
        near = get_close_matches(name_or_reference, TASKS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise BadInput(
            f"no task is called {name_or_reference!r}{hint}; there are {', '.join(TASKS)}, "
            f"and module:object for your own"
        )
    return TASKS[name_or_reference]


def _check_options(name: str, factory: TaskFactory, given: set[str]) -> None:
    parameters = inspect.signature(factory).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    unknown = sorted(given - parameters.keys())
    required = {key for key, parameter in parameters.items() if parameter.default is parameter.empty}
    missing = sorted(required - given)
    if unknown or missing:
        wrong = "has no option " + ", ".join(unknown) if unknown else "needs the option " + ", ".join(missing)
        valid = ", ".join(key for key in parameters if key not in ("partitions", "seed")) or "none"
        raise BadInput(f"task {name!r} {wrong}; its options are: {valid}")
