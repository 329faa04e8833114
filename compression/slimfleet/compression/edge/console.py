"""Exit codes of every slimfleet command: 0 done, 1 failure, 2 bad input, 130 interrupted by the user."""

from __future__ import annotations

import sys
from typing import NoReturn

import click
import typer

from slimfleet.compression.errors import BadInput

BAD_INPUT = 2
INTERRUPTED = 130


def run_app(app: typer.Typer) -> NoReturn:
    """Run a command line application over `sys.argv` and exit.

    Bad input (BadInput, or an option that does not parse) becomes one line on stderr and exit code 2, without a
    traceback. Ctrl-C becomes exit code 130. Every other exception is a defect of slimfleet: it keeps its traceback and
    exits with 1.
    """
    try:
        status = app(standalone_mode=False)
    except BadInput as error:
        _complain(str(error))
        sys.exit(BAD_INPUT)
    except click.ClickException as error:
        _complain(error.format_message())
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    sys.exit(status if isinstance(status, int) else 0)


def _complain(message: str) -> None:
    """Print `message` as one line on stderr."""
    print("error:", " ".join(message.split()), file=sys.stderr)
