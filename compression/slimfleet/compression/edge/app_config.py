"""Flower configs: tables of scalars, which Flower hands to an app flattened, with dots in the keys."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, TypeVar

from slimfleet.compression.edge.checked import checked
from slimfleet.compression.errors import BadInput

Config = Mapping[str, str | int | float | bool]
"""A run-config or a node-config."""

T = TypeVar("T")


def table(config: Config, name: str) -> dict[str, Any]:
    """The entries of the table `name`, without that prefix."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}


def config_as(kind: type[T], config: Config, source: str) -> T:
    """A config as the dataclass `kind`, where the dashes in its keys are underscores.

    Raises BadInput, in one line that begins with `source`.
    """
    return checked(kind, {key.replace("-", "_"): value for key, value in config.items()}, source)


def log_to_stderr(form: str) -> None:
    """Write what slimfleet logs to stderr, which Flower passes on (the root logger has Flower's lines too)."""
    logger = logging.getLogger("slimfleet")
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(form))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def task_reference(config: Config) -> tuple[str, dict[str, Any]]:
    """`task.name`, and the other entries of that table: the task's arguments. Both ends of a federation read it.

    Raises BadInput when there is no name.
    """
    arguments = table(config, "task")
    name = arguments.pop("name", None)
    if not isinstance(name, str):
        raise BadInput("run-config: task.name is missing; give a module:object such as my_module:MyTask")
    return name, arguments
