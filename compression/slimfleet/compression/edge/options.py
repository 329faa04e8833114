"""Options that several commands share: a task's arguments, and the folders of its code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from slimfleet.compression.errors import BadInput

TaskArguments = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="KEY=VALUE", help="An argument of the task, as JSON; repeatable."),
]
ImportFrom = Annotated[
    list[Path] | None,
    typer.Option(help="Folder that holds the module of your task [the current one]; repeatable."),
]


def keyword_arguments(options: Sequence[str] | None) -> dict[str, Any]:
    """`key=value` texts as a dict; values are JSON, and what is not JSON is text. Raises BadInput without a `=`."""
    arguments = {}
    for text in options or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise BadInput(f"--option {text!r} is not of the form key=value (for example --option alpha=0.1)")
        try:
            arguments[key] = json.loads(value)
        except ValueError:
            arguments[key] = value
    return arguments
