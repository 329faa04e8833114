"""Task loader: the task that a person names, imported from its folders, built and checked."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence, Set
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from slimfleet.compression.checked_task import CheckedTask, blamed
from slimfleet.compression.edge.references import resolve
from slimfleet.compression.errors import BadInput
from slimfleet.compression.task import Task


def existing_folders(folders: Sequence[Path]) -> tuple[str, ...]:
    """`folders` as absolute paths, each once, so that they mean the same in every process.

    Raises BadInput naming a folder that does not exist.
    """
    missing = next((folder for folder in folders if not folder.is_dir()), None)
    if missing is not None:
        raise BadInput(f"there is no folder {missing} to import from")
    return tuple(dict.fromkeys(str(folder.resolve()) for folder in folders))


def make_importable(folders: Sequence[str]) -> None:
    """Put `folders` at the front of `sys.path`, in their order, as Python does with the folder of a script."""
    sys.path[:] = [*folders, *(entry for entry in sys.path if entry not in folders)]


TaskFactory = Callable[..., Task]
"""Called as `factory(partitions=..., seed=..., **options)`."""

BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "digits": "slimfleet.client.tasks:Digits",
        "fashion-mnist": "slimfleet.client.tasks:FashionMnist",
        "spoken-digits": "slimfleet.client.tasks:spoken_digits",
        "activities": "slimfleet.client.tasks:activities",
        "reuters-r8": "slimfleet.client.tasks:reuters_r8",
        "newsgroups": "slimfleet.client.tasks:newsgroups",
    }
)
"""The short names of the built-in tasks, for the part that does not import the client."""

MEMBERS = ("name", "partitions", "build_model", "example_inputs", "load", "loss", "evaluate")


def load_task(
    reference: str,
    known: Mapping[str, TaskFactory | str],
    *,
    partitions: int,
    seed: int,
    options: Mapping[str, Any],
) -> CheckedTask:
    """The task called `reference`: a short name of `known` (a factory, or where one is found), or `module:object`.

    The object is a task, or a factory (a class or function) that takes `partitions`, `seed` and the options, all by
    name; an option may replace one of the first two. Raises BadInput, in one line, when the name is unknown, the
    reference cannot be imported or gives no task, or an option does not exist.
    """
    found = resolve(reference) if ":" in reference else _by_short_name(reference, known)
    if callable(found):
        arguments = {"partitions": partitions, "seed": seed, **options}
        _check_options(reference, found, arguments.keys())
        with blamed(reference, "when it is made"):
            found = found(**arguments)
    missing = [member for member in MEMBERS if not _has(found, member, reference)]
    if missing:
        raise BadInput(
            f"{reference!r} gives a {type(found).__name__} without {', '.join(missing)}: not a task"
        )
    task = CheckedTask(cast(Task, found), reference)
    _ = task.name, task.partitions  # refused here where they are not what they must be
    return task


def _has(found: object, member: str, reference: str) -> bool:
    with blamed(reference, member):
        return hasattr(found, member)


def _by_short_name(name: str, known: Mapping[str, TaskFactory | str]) -> object:
    if name in known:
        found = known[name]
        return resolve(found) if isinstance(found, str) else found
    near = get_close_matches(name, known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise BadInput(
        f"no task is called {name!r}{hint}; there are {', '.join(known)}, and module:object for your own"
    )


def _check_options(reference: str, factory: Callable[..., object], given: Set[str]) -> None:
    try:
        parameters = inspect.signature(factory).parameters
    except ValueError:  # some built-in functions have none: the call itself will tell
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    unknown = sorted(given - parameters.keys())
    required = {key for key, parameter in parameters.items() if parameter.default is parameter.empty}
    missing = sorted(required - given)
    if unknown or missing:
        wrong = "has no option " + ", ".join(unknown) if unknown else "needs the option " + ", ".join(missing)
        options = [key for key in parameters if key not in ("partitions", "seed")]
        near = get_close_matches(unknown[0], options, n=1) if unknown else []
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise BadInput(f"task {reference!r} {wrong}{hint}; its options are: {', '.join(options) or 'none'}")
