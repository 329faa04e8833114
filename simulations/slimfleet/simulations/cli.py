"""Command line `slimfleet-simulate`: run a scenario over a virtual fleet and see what it costs."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from slimfleet.compression.edge.command_line import command_app, interruptible, run_app
from slimfleet.compression.edge.logs import say
from slimfleet.compression.errors import BadInput
from slimfleet.simulations.scenario import DEFAULT, folder_name, load_scenario, scenario_lines, scenario_names

if TYPE_CHECKING:
    from slimfleet.coordinator import Observer
    from slimfleet.simulations.settings import Scenario

app = command_app()

_OUTPUT_ROOT = Path("slimfleet-out")


def _scenarios_from(incomplete: str) -> list[str]:
    """Completions of a scenario's name, and of a command's, which may stand in its place."""
    return [name for name in (*scenario_names(), *COMMANDS) if name.startswith(incomplete)]


_LIST = "\n".join(f"  {name:<14} {line}" for name, line in scenario_lines().items())
_HELP = f"""Train one model on many virtual devices under their budgets.

Scenarios that ship, each of which can be made smaller with --devices and --rounds:
{_LIST}

For example:
  slimfleet-simulate fashion_mnist --baseline
  slimfleet-simulate digits --set budget.energy_j=3 --set fleet.dropout=0.1
  slimfleet-simulate --rounds 10 --json > summary.json
  slimfleet-simulate digits --ray-address auto

After an interruption:
  slimfleet-simulate --resume slimfleet-out/digits

Many runs, each with a --help of its own:
  slimfleet-simulate sweep FILE
  slimfleet-simulate compare RUN RUN
"""


@app.command(help=_HELP)
def run(
    scenario: Annotated[
        str,
        typer.Argument(
            help=f"One of {', '.join(scenario_names())}, or the path of a TOML file.",
            autocompletion=_scenarios_from,
        ),
    ] = DEFAULT,
    rounds: Annotated[int | None, typer.Option(help="Rounds to run.", show_default="the scenario's")] = None,
    devices: Annotated[
        int | None, typer.Option(help="Devices in the fleet.", show_default="the scenario's")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="The same seed gives the same model bytes.", show_default="the scenario's"),
    ] = None,
    backend: Annotated[
        Literal["local", "ray"] | None,
        typer.Option(
            help="local: in this process. ray: on all cores, through Ray actors.",
            show_default="local, and ray with an address of Ray",
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Run on the existing Ray cluster with this HOST:PORT; auto: the one of this machine.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the results, which must be empty.", show_default="slimfleet-out/NAME"),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue the run that was interrupted in this folder.")
    ] = None,
    baseline: Annotated[
        bool,
        typer.Option("--baseline", help="Also run plain float32 FedAvg on the same devices and compare."),
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the scenario; repeatable."),
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve Prometheus metrics on this port of the loopback address.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what summary.json holds instead of the tables.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show neither progress nor tables, only errors.")
    ] = False,
) -> None:
    """Run a scenario; `_HELP` is what people read."""
    # Imported here: torch and Flower take seconds to load, and neither --help nor a mistyped option needs them.
    with interruptible():
        from rich.console import Console

        from slimfleet.coordinator.observing.prometheus import serve_metrics
        from slimfleet.coordinator.reporting.outputs import BEST_MODEL
        from slimfleet.simulations.closing import closing_table
        from slimfleet.simulations.progress import RoundProgress
        from slimfleet.simulations.run import resumed_scenario, simulate

    _tell_of_devices_if_asked()
    if backend == "local" and ray_address:
        raise BadInput("--ray-address is for the Ray backend: leave out --backend local")
    if resume is None:
        options = {
            "rounds": rounds,
            "fleet.devices": devices,
            "seed": seed,
            "run.ray_address": _quoted(ray_address),
        }
        resolved = _scenario(scenario, options, settings or [])
        folder = _folder(out, resolved.coordinator.name)
    else:
        if any(option is not None for option in (devices, seed, out, settings)):
            raise BadInput(
                "--resume continues the scenario of its folder: give it without other settings than --rounds "
                "and --ray-address"
            )
        resolved, folder = resumed_scenario(resume, rounds, ray_address), resume
        baseline = baseline or (resume / "baseline").is_dir()
    with ExitStack() as stack:
        observers: list[Observer] = []
        if metrics_port is not None:
            metrics, server = serve_metrics(metrics_port, federation=resolved.coordinator.name)
            stack.enter_context(server)
            observers = [metrics]
        progress = None if quiet else stack.enter_context(RoundProgress())
        try:
            record, plain = simulate(
                resolved,
                folder,
                backend=backend or ("ray" if resolved.run.ray_address else "local"),
                baseline=baseline,
                resume=resume is not None,
                observers=observers,
                progress=progress,
            )
        except KeyboardInterrupt:
            say(f"to continue: slimfleet-simulate --resume {folder}")
            raise
    if as_json:
        print((folder / "summary.json").read_text(encoding="utf-8"), end="")
    elif not quiet:
        console = Console()
        console.print(closing_table(record, plain))
        best = f", the best model is {BEST_MODEL}" if record.best is not None else ""
        console.print(
            f"\nResults in {folder}, pictures in {folder / 'report.html'}{best}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def _scenario(name: str, options: Mapping[str, int | str | None], settings: list[str]) -> Scenario:
    overrides = {key: str(value) for key, value in options.items() if value is not None}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise BadInput(
                f"--set {setting!r} is not of the form key=value (for example --set fleet.dropout=0.1)"
            )
        overrides[key] = value
    return load_scenario(name, overrides)


def _quoted(text: str | None) -> str | None:
    """A TOML string."""
    return None if text is None else json.dumps(text)


def _folder(out: Path | None, name: str) -> Path:
    """The folder that was given, which must hold no run yet, or the first free one of the scenario's name."""
    if out is not None:
        if os.path.lexists(out / "scenario.toml"):
            raise BadInput(
                f"{out} holds a run already: give another --out, or continue it with --resume {out}"
            )
        return out
    name = folder_name(name)
    tries = (_OUTPUT_ROOT / (name if i == 1 else f"{name}-{i}") for i in range(1, 10_000))
    return next(folder for folder in tries if not os.path.lexists(folder))


_ROUND_BY_ROUND = ("slimfleet.coordinator.coordinator", "slimfleet.coordinator.transport.driving")
"""Loggers that speak of single devices and rounds, whose sums the closing table has."""


def _tell_of_devices_if_asked() -> None:
    """Hold back what is said of single devices and rounds, unless more is asked for; Flower's log becomes ours."""
    more = logging.getLogger("slimfleet").isEnabledFor(logging.INFO)
    for name in _ROUND_BY_ROUND:
        logging.getLogger(name).setLevel(logging.NOTSET if more else logging.ERROR)
    flower = logging.getLogger("flwr")
    flower.setLevel(logging.WARNING)
    flower.handlers.clear()


COMMANDS = {
    "sweep": "slimfleet.simulations.commands.sweep",
    "compare": "slimfleet.simulations.commands.compare",
}
"""What else the first argument may be: no scenario has these names, and a path has a suffix or a slash."""


def _command_completed() -> str | None:
    """The command whose options a shell wants to complete; its name is taken out of the shell's words."""
    for variable in ("COMP_WORDS", "_TYPER_COMPLETE_ARGS"):  # Typer's: of bash, and of the others
        words = re.fullmatch(r"(\S+)\s+(\S+)(\s.*)", os.environ.get(variable, ""), re.DOTALL)
        if words is not None and words[2] in COMMANDS and "_SLIMFLEET_SIMULATE_COMPLETE" in os.environ:
            os.environ[variable] = words[1] + words[3]
            os.environ["COMP_CWORD"] = str(int(os.environ.get("COMP_CWORD", "1")) - 1)
            return words[2]
    return None


def main() -> None:
    """Entry point of the command."""
    if (completed := _command_completed()) is not None:
        run_app(import_module(COMMANDS[completed]).app, "slimfleet-simulate", extra="simulation")
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in COMMANDS:
        del sys.argv[1]
        run_app(import_module(COMMANDS[name]).app, f"slimfleet-simulate {name}", extra="simulation")
    run_app(app, "slimfleet-simulate", extra="simulation")


if __name__ == "__main__":
    main()
