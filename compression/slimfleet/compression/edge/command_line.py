"""Command lines: the exit codes of every slimfleet command, and options that several of them share."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import click
import typer

from slimfleet.compression.errors import BadInput, SlimfleetError
from slimfleet.compression.foreign_text import foreign_text

log = logging.getLogger(__name__)

FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130

LONGEST_COMPLAINT = 2_000
"""Characters of an error that are printed."""


def run_app(app: typer.Typer) -> NoReturn:
    """Run a command line application over `sys.argv` and exit.

    Bad input (BadInput, or an option that does not parse) becomes one line on stderr and exit code 2, any other
    SlimfleetError one line and exit code 1; their cause is logged for people who ask for more, with its traceback.
    Ctrl-C becomes exit code 130. Every other exception is a defect of slimfleet: it keeps its traceback and exits
    with 1.
    """
    try:
        status = app(standalone_mode=False)
    except SlimfleetError as error:
        if error.__cause__ is not None:
            log.info("This went before:", exc_info=error.__cause__)
        _complain(str(error))
        sys.exit(BAD_INPUT if isinstance(error, BadInput) else FAILED)
    except click.ClickException as error:
        _complain(error.format_message())
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    sys.exit(status if isinstance(status, int) else 0)


def _complain(message: str) -> None:
    """Print `message` as one line on stderr, whatever it repeats of a file or an argument."""
    print("error:", foreign_text(" ".join(message.split()), LONGEST_COMPLAINT), file=sys.stderr)


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
