"""Command `slimfleet-device meters`. It starts without torch."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from slimfleet.client.commands.arguments import AsJson
from slimfleet.client.meters import read_all
from slimfleet.client.meters.battery import read_batteries
from slimfleet.compression.edge.command_line import interruptible, json_text

__all__ = ["meters"]


def meters(
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="How long to measure.")] = 2.0,
    idle_w: Annotated[
        float | None,
        typer.Option("--idle-w", metavar="W", min=0, help="Power at rest: the net joules leave it out."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show which meters give a reading on this machine, and what they read.

    A meter without a reading is not an error: a machine on mains has no battery to measure.
    Its joules are then estimated from its profile, and reported as estimated.
    A reading needs ten samples, ten a second; termux and charge-counter take one a second.
    """
    with interruptible():
        from rich.console import Console

        from slimfleet.client.tables import batteries_table, meters_table

    batteries, readings = read_batteries(), read_all(seconds)
    if as_json:
        found = {name: None if reading is None else asdict(reading) for name, reading in readings.items()}
        print(json_text({"batteries": [asdict(each) for each in batteries], "meters": found}))
        return
    console = Console()
    console.print(batteries_table(batteries))
    console.print(meters_table(readings, idle_w))
