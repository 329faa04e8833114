"""Terminal: progress bars on stderr, tables on stdout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from slimfleet.compression.edge.logs import logs_are_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn
    from rich.table import Table

__all__ = ["byte_progress", "error_console", "live_line", "progress", "show"]

Told = Callable[[str, int, int], None]
"""What is being done, how many parts of it are done, and of how many."""


def error_console() -> Console:
    """Where progress is shown: stderr, unless that is for JSON objects alone."""
    from rich.console import Console

    return Console(stderr=True, quiet=logs_are_json())


def show(table: Table) -> None:
    """Print a table."""
    from rich.console import Console

    Console().print(table)


@contextmanager
def progress(quiet: bool) -> Iterator[Told]:
    """A bar where stderr is a terminal; yields what moves it."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with _bar(columns, quiet) as told:
        yield told


@contextmanager
def byte_progress(title: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar where stderr is a terminal; yields what is told the bytes done, and of how many."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with _bar(columns, quiet) as told:
        yield lambda done, of: told(title, done, of)


def live_line(console: Console, count: ProgressColumn) -> Progress:
    """A line that stays on a terminal: what is done, how much of it by `count`, and the field `state` of its task."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=28),
        count,
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(compact=True),
        console=console,
        disable=not _is_live(console),
    )


def _is_live(console: Console) -> bool:
    return console.is_terminal and not console.quiet


@contextmanager
def _bar(columns: tuple[ProgressColumn, ...], quiet: bool) -> Iterator[Told]:
    from rich.markup import escape
    from rich.progress import Progress

    console = error_console()
    with Progress(*columns, console=console, transient=True, disable=quiet or not _is_live(console)) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, of: bar.update(task, description=escape(what), completed=done, total=of)
