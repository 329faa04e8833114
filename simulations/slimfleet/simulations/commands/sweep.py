"""`slimfleet-simulate sweep`: a grid of settings on several seeds, run and compared."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import typer

from slimfleet.compression.edge.command_line import Quiet, command_app, interruptible
from slimfleet.compression.edge.logs import say
from slimfleet.compression.errors import SlimfleetError
from slimfleet.simulations.scenario import folder_name
from slimfleet.simulations.sweeps.sweep_file import load_sweep

app = command_app()

_OUTPUT_ROOT = Path("slimfleet-out")


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="TOML file: a scenario, a grid of settings, variants, seeds.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the results; what is finished in it is kept.", show_default="slimfleet-out/NAME"
        ),
    ] = None,
    backend: Annotated[
        Literal["local", "ray"],
        typer.Option(help="local: on this machine. ray: on Ray, a cell for each of its cores."),
    ] = "local",
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Cells that run at once.", show_default="1, on Ray one for each core"),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Run a grid of settings on several seeds and compare what comes of it.

    Every cell is an ordinary run in a folder of its own, which slimfleet-simulate
    compare takes too. After Ctrl-C, a crash or kill -9 the same command goes on:
    finished cells are kept, an interrupted one continues at its last round.
    A cell that fails is named and does not end the others; the exit code is 1.

    For example:
      slimfleet-simulate sweep budgets.toml
      slimfleet-simulate sweep budgets.toml --backend ray

    A sweep file:
      scenario = "digits"
      seeds = \\[0, 1, 2]
      baseline = true
      grid.budget.energy_j = \\[0.5, 1.0, 2.0]
      set.rounds = 10
      variants.fast.codec.preset = "fast"
      variants.small.codec.preset = "small"

    It leaves report.html with means, error bars and Pareto fronts, and sweep.csv
    with a line for every cell. docs/sweeps.md tells more.
    """
    with interruptible():
        from rich.console import Console

        from slimfleet.simulations.sweeps.progress import CellProgress
        from slimfleet.simulations.sweeps.sweep import run_sweep
        from slimfleet.simulations.sweeps.tables import comparison_table

    asked = load_sweep(file)
    folder = out or _OUTPUT_ROOT / folder_name(asked.name)
    with ExitStack() as stack:
        progress = None if quiet else stack.enter_context(CellProgress())
        try:
            comparison = run_sweep(
                asked,
                folder,
                backend=backend,
                jobs=jobs or (1 if backend == "local" else 0),
                progress=progress,
            )
        except KeyboardInterrupt:
            say(f"to continue: slimfleet-simulate sweep {file} --out {folder}")
            raise
    if not quiet:
        console = Console()
        console.print(comparison_table(comparison))
        console.print(
            f"\nResults in {folder / 'sweep.csv'}, pictures in {folder / 'report.html'}", soft_wrap=True
        )
    if comparison.problems:
        first, problem = next(iter(comparison.problems.items()))
        others = f" (and {len(comparison.problems) - 1} more)" if len(comparison.problems) > 1 else ""
        raise SlimfleetError(f"{first} failed{others}: {problem}")
