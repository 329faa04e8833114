"""Every command: the options that all slimfleet commands share, and the classes of Click that add them.

A function declares one of them only where it does something with it; the rest is done here.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click
import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from slimfleet.compression.edge.logs import LEVELS, Level, start_logs

__all__ = ["QUIET", "VERBOSE", "EveryCommand", "EveryGroup", "ResidentCommand"]

QUIET = "Show neither progress nor remarks, only results and errors."
VERBOSE = "Show more, and the traceback of what a task raises."
"""Help of `--quiet` and `--verbose`, also where a function declares them itself."""

_PANEL = "Options of every command"


class EveryCommand(TyperCommand):
    """A command with `--quiet`, `--verbose`, `--log-level`, `--log-json` and `--version`."""

    usual: Level = "warning"
    """The level of its log, where nothing is said of it."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        declared = {each.name for each in self.params}
        self._added = [each for each in (*_options(self.usual), _version()) if each.name not in declared]
        self.params += self._added

    def invoke(self, context: click.Context) -> Any:
        """Start the logs, then call the function with what it declares."""
        given = context.params
        unspoken: Level = "error" if given["quiet"] else "info" if given["verbose"] else self.usual
        start_logs(given["log_level"] or unspoken, given["log_json"])
        for option in self._added:
            given.pop(option.name, None)
        return super().invoke(context)


class ResidentCommand(EveryCommand):
    """One that stays, and tells in its log what it does."""

    usual = "info"


class EveryGroup(TyperGroup):
    """A command that has commands, with `--version`."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.params.append(_version())


def _options(usual: Level) -> tuple[TyperOption, ...]:
    return (
        _flag("--quiet", "-q", text=QUIET),
        _flag("--verbose", "-v", text=VERBOSE),
        TyperOption(
            param_decls=["--log-level"],
            type=click.Choice(LEVELS),
            help="From which level on to log to stderr.",
            show_default=f"{usual}, with -v info, with -q error",
            rich_help_panel=_PANEL,
        ),
        _flag("--log-json", text="Log a JSON object a line, and show no progress."),
    )


def _version() -> TyperOption:
    return _flag(
        "--version",
        text="Show the version and exit.",
        callback=_print_version,
        is_eager=True,
        expose_value=False,
    )


def _flag(*names: str, text: str, **settings: Any) -> TyperOption:
    return TyperOption(
        param_decls=list(names), is_flag=True, default=False, help=text, rich_help_panel=_PANEL, **settings
    )


def _print_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        try:
            print("slimfleet", version("slimfleet"))
        except PackageNotFoundError:
            print("slimfleet, not installed but run from its sources")
        raise typer.Exit
