"""`slimfleet-simulate compare`: finished runs beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slimfleet.compression.edge.command_line import Quiet, command_app, interruptible

app = command_app()


@app.command()
def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs; two or more.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for report.html and compare.csv.")] = Path(
        "slimfleet-out/compare"
    ),
    quiet: Quiet = False,
) -> None:
    """Put finished runs beside each other: a table, report.html and compare.csv.

    Runs that differ in nothing but the seed are one point, with means and error
    bars. Runs of different tasks are refused; other differences that make numbers
    hard to compare, such as rounds or devices, are told.

    For example:
      slimfleet-simulate compare slimfleet-out/digits slimfleet-out/digits-2
    """
    with interruptible():
        from rich.console import Console

        from slimfleet.simulations.sweeps.compare import compare_runs
        from slimfleet.simulations.sweeps.tables import comparison_table

    comparison = compare_runs(runs, out)
    if not quiet:
        console = Console()
        console.print(comparison_table(comparison))
        console.print(
            f"\nResults in {out / 'compare.csv'}, pictures in {out / 'report.html'}", soft_wrap=True
        )
