"""Command line `slimfleet-coordinator`: federations served, their keys, and what would be planned for devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from slimfleet.compression.edge.checked import checked
from slimfleet.compression.edge.command_line import (
    ImportFrom,
    TaskArguments,
    command_app,
    interruptible,
    json_text,
    keyword_arguments,
    run_app,
    stdout_kept_clean,
)
from slimfleet.compression.edge.every_command import ResidentCommand
from slimfleet.compression.edge.input_files import read_profiles
from slimfleet.compression.edge.task_loader import BUILT_IN, existing_folders, load_task, make_importable
from slimfleet.compression.types import Budget, Skip
from slimfleet.coordinator.commands.pki import pki_app
from slimfleet.coordinator.commands.serve import serve
from slimfleet.coordinator.settings import Budgets, ClientSettings, CoordinatorSettings, SelectionSettings

if TYPE_CHECKING:
    from slimfleet.coordinator.planning.explain import Explanation

app = command_app(no_args_is_help=True)
app.command(cls=ResidentCommand)(serve)
app.add_typer(pki_app, name="pki")

Joules = Annotated[float | None, typer.Option(min=0, help="Most joules above idle, radio included.")]
Watts = Annotated[float | None, typer.Option(min=1e-6, help="Most mean watts while training, above idle.")]
Memory = Annotated[int | None, typer.Option(min=0, help="Most memory of the process, at its peak.")]
Seconds = Annotated[float | None, typer.Option(min=0, help="Most seconds from plan to upload.")]
Uplink = Annotated[int | None, typer.Option(min=0, help="Most bytes sent.")]
Downlink = Annotated[int | None, typer.Option(min=0, help="Most bytes received.")]


@app.callback()
def _commands() -> None:
    """Serve a federation, make its keys, and see what would be planned for devices, and why."""


@app.command()
def plan(
    task: Annotated[str, typer.Option(help=f"{', '.join(BUILT_IN)}, or module:object for your own task.")],
    profile: Annotated[
        list[Path], typer.Option(help="JSON file of one device profile or of a list; repeatable.")
    ],
    energy_j: Joules = None,
    power_w: Watts = None,
    memory_bytes: Memory = None,
    deadline_s: Seconds = None,
    uplink_bytes: Uplink = None,
    downlink_bytes: Downlink = None,
    examples: Annotated[int, typer.Option(min=1, help="Local examples of each device.")] = 256,
    runtime: Annotated[
        Literal["torch", "lite"], typer.Option(help="Whose memory model the devices follow.")
    ] = "torch",
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of plans as JSON.")] = False,
    option: TaskArguments = None,
    import_from: ImportFrom = None,
) -> None:
    """Show the plan that each device would get in its first round under a budget, or why it would be skipped.

    Limits hold for one round on one device; a limit that is left out does not apply.
    Profiles come from slimfleet-device profile --json, run on the device.

    For example:
      slimfleet-coordinator plan --task digits --profile pi.json --energy-j 2
    """
    with interruptible():
        from slimfleet.coordinator.planning.explain import explain  # loads torch, which --help does not need

    profiles = [each for path in profile for each in read_profiles(path)]
    make_importable(existing_folders(import_from or [Path()]))
    limits = {
        "energy_j": energy_j,
        "power_w": power_w,
        "memory_bytes": memory_bytes,
        "deadline_s": deadline_s,
        "uplink_bytes": uplink_bytes,
        "downlink_bytes": downlink_bytes,
    }
    budget = checked(Budget, limits, lambda key: f"--{key.replace('_', '-')}")
    settings = CoordinatorSettings(
        rounds=1,
        selection=SelectionSettings(policy="uniform", per_round=len(profiles)),
        budget=Budgets(common=budget),
        client=ClientSettings(runtime=runtime),
    )
    with stdout_kept_clean():
        loaded = load_task(task, BUILT_IN, partitions=1, seed=0, options=keyword_arguments(option))
        explanations = explain(loaded, profiles, settings, examples)
    if as_json:
        print(json_text([_record(each) for each in explanations]))
    else:
        console = Console()
        console.print(_table(explanations))
        for each in explanations:
            console.print(f"[bold]{escape(each.profile.name)}[/bold]", highlight=False)
            console.print(Padding(escape(each.choice.reason), (0, 0, 0, 2)), highlight=False)


def _record(each: Explanation) -> dict[str, Any]:
    predicted = None if each.predicted is None else asdict(each.predicted)
    kind = "skip" if each.predicted is None else "plan"
    return {
        "device": each.profile.name,
        kind: asdict(each.choice),
        "reason": each.choice.reason,
        "predicted": predicted,
    }


def _table(explanations: Sequence[Explanation]) -> Table:
    """Without the reasons: with them no line of it would fit into 80 columns."""
    table = Table(
        title="First round; costs as predicted from the profiles",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("device", overflow="fold")
    for heading in ("width", "steps", "batch", "NMSE", "J", "s", "MB", "kB up", "kB down"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in explanations:
        table.add_row(escape(each.profile.name), *_cells(each))
    return table


def _cells(each: Explanation) -> list[str]:
    chosen, predicted = each.choice, each.predicted
    if isinstance(chosen, Skip) or predicted is None:
        return ["skip", *[""] * 8]
    return [
        f"{chosen.width:g}",
        str(chosen.local_steps),
        str(chosen.batch_size),
        f"{chosen.nmse:g}",
        f"{predicted.energy_j:.3g}",
        f"{predicted.time_s:.3g}",
        f"{predicted.memory_bytes / 1e6:.0f}",
        f"{predicted.uplink_bytes / 1e3:,.1f}",
        f"{predicted.downlink_bytes / 1e3:,.1f}",
    ]


def main() -> None:
    """Entry point of `slimfleet-coordinator`."""
    run_app(app, "slimfleet-coordinator", extra="coordinator")


if __name__ == "__main__":
    main()
