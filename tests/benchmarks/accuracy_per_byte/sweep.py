"""Every method on every seed, one after the other, those done before left out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import cache
from fedavg import Round, fedavg
from federation import Federation
from methods import METHODS
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from settings import Settings
from uplink import Uplink


def sweep(settings: Settings, names: Sequence[str], seeds: Sequence[int], file: Path) -> list[cache.Run]:
    """The runs of `names` on `seeds`, seed by seed: taken from `file` where they are there, else done and added."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<32}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
    )
    done, runs = cache.load(file), []
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        overall = progress.add_task("rounds of all runs", total=len(names) * len(seeds) * settings.rounds)
        for seed in seeds:
            federation = Federation(settings, seed)
            for name in names:
                print_of_method = cache.fingerprint(settings, METHODS[name], federation.schema)
                run = done.get((name, seed, print_of_method))
                if run is None:
                    progress.update(overall, description=f"seed {seed}, {name}")
                    begun = time.perf_counter()
                    rounds = _rounds(federation, name, progress, overall)
                    run = cache.Run(name, seed, print_of_method, time.perf_counter() - begun, rounds)
                    cache.append(file, run)
                    console.print(_line(run), highlight=False)
                else:
                    progress.advance(overall, settings.rounds)
                runs.append(run)
    return runs


def _rounds(federation: Federation, name: str, progress: Progress, task: int) -> list[Round]:
    method = METHODS[name]
    uplink = Uplink(federation.schema, method.compressor, method.feedback, federation.seed)
    rounds = []
    for done in fedavg(federation, uplink):
        rounds.append(done)
        progress.advance(task)
    return rounds


def _line(run: cache.Run) -> str:
    last, sent = run.rounds[-1], sum(r.uplink_bytes for r in run.rounds)
    return (
        f"seed {run.seed}, {run.method}: accuracy {100 * last.accuracy:.1f} % after {len(run.rounds)} rounds, "
        f"sent {sent:,} bytes, {run.seconds:.0f} s"
    )
