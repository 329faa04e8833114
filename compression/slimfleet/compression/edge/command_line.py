"""Command lines: what every slimfleet command shares: exit codes, errors in one line, output, common options."""

from __future__ import annotations

import codecs
import errno
import io
import json
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO

import click
import typer

from slimfleet.compression.edge.every_command import QUIET, VERBOSE, EveryCommand, EveryGroup
from slimfleet.compression.edge.extras import what_to_install
from slimfleet.compression.edge.logs import finite, say
from slimfleet.compression.errors import BadInput, SlimfleetError
from slimfleet.compression.foreign_text import foreign_text

log = logging.getLogger(__name__)

FAILURE = 1
BAD_INPUT = 2
INTERRUPTED = 130

LONGEST_COMPLAINT = 2_000
"""Characters of an error that are printed."""


class _App(typer.Typer):
    """Typer, of which every command has the options that all have."""

    def command(self, *arguments: Any, **settings: Any) -> Any:
        return super().command(*arguments, **{"cls": EveryCommand} | settings)


def command_app(**settings: Any) -> typer.Typer:
    """A command line application as slimfleet has them: `-h`, completion, plain tracebacks; `settings` are Typer's.

    Every command of it has the options of `every_command`. Help texts are rich markup: a `[` in them needs a
    backslash. Paragraphs after the first keep their line breaks.
    """
    return _App(
        cls=EveryGroup,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        **settings,
    )


def run_app(app: typer.Typer, name: str, extra: str) -> NoReturn:
    """Run a command line application, called `name`, over `sys.argv` and exit; `extra` brings what it may lack.

    Bad input (BadInput, an option that does not parse, a package of an extra that is not installed) becomes one line on
    stderr and exit code 2, any other SlimfleetError one line and exit code 1; their cause is logged with its traceback,
    for people who ask for more, as are warnings of libraries. Ctrl-C becomes exit code 130, output that finds no room
    or no reader 1.
    Every other exception is a defect of slimfleet: it keeps its traceback and exits with 1.
    """
    _show_all_characters()
    warnings.showwarning = _log_warning
    try:
        status = app(prog_name=name, standalone_mode=False)
        sys.stdout.flush()
    except SlimfleetError as error:
        if error.__cause__ is not None:
            log.info("This was raised:", exc_info=error.__cause__)
        complain(str(error))
        sys.exit(BAD_INPUT if isinstance(error, BadInput) else FAILURE)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        wanted = what_to_install(package, extra)
        if wanted is None:
            raise
        complain(f"{package} is not installed, which this needs: pip install 'slimfleet[{wanted}]'")
        sys.exit(BAD_INPUT)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EPIPE):
            raise
        # The interpreter would try once more to write what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.ENOSPC:
            complain(f"cannot write: {error.strerror}")
        sys.exit(FAILURE)
    except click.ClickException as error:
        complain(error.format_message())
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        status = INTERRUPTED
    if status == INTERRUPTED:  # which is also what Typer makes of Ctrl-C
        say("interrupted")
    sys.exit(status if isinstance(status, int) else 0)


def complain(message: str) -> None:
    """Print `message` as one line on stderr, whatever it repeats of a file or an argument."""
    say(foreign_text(" ".join(message.split()), LONGEST_COMPLAINT), "error")


@contextmanager
def stdout_kept_clean() -> Iterator[None]:
    """While open, what a task prints goes to stderr: stdout is for results, which other programs may read."""
    with redirect_stdout(sys.stderr):
        yield


def json_text(value: object) -> str:
    """`value` as indented JSON that every reader takes: a number that is not finite becomes null."""
    return json.dumps(finite(value), indent=2, allow_nan=False)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C end the process on the spot, for the time in which it imports libraries.

    They do so in places, such as callbacks of the garbage collector, where Python drops a KeyboardInterrupt.
    """
    handler = signal.getsignal(signal.SIGINT)
    if handler is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _leave(number: int, frame: object) -> NoReturn:
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Most warnings are by libraries, about a task's model: for people who ask for more."""
    log.info("%s:%d: %s: %s", filename, lineno, category.__name__, message)


def _show_all_characters() -> None:
    """Replace what the terminal's encoding (cp437, ASCII, KOI8-R) cannot show, rather than fail after a whole run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_NEAREST)


_NEAREST = "slimfleet-nearest"
_PLAIN = {"×": "x", "–": "-", "—": "-", "…": "...", "•": "*", "‘": "'", "’": "'", "“": '"', "”": '"'}


def _nearest(error: UnicodeError) -> tuple[str, int]:
    """For characters that cannot be encoded: those of ASCII that look most like them."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in missing), error.end


codecs.register_error(_NEAREST, _nearest)


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help=QUIET)]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help=VERBOSE)]
TaskArguments = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="KEY=VALUE", help="An argument of the task, as JSON; repeatable."),
]
ImportFrom = Annotated[
    list[Path] | None,
    typer.Option(
        help="Folder that holds the module of your task; repeatable.", show_default="the current one"
    ),
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
