"""Every model in a process of its own, some at a time; outcomes are kept, so that an interrupted sweep goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .kept import Kept
from .outcome import Outcome

WALL_SECONDS = 1800
"""Of one model: beyond its bounds of processor time together, for a process that waits for ever."""


def sweep(names: Sequence[str], kept: Kept, jobs: int, examine: Callable[[str], Outcome]) -> list[Outcome]:
    """The outcomes of `names`, in that order: those in `kept`, and the others by `examine`, `jobs` at a time."""
    found = {name: outcome for name in names if (outcome := kept.get(name))}
    missing = [name for name in names if name not in found]
    console = Console(stderr=True)
    columns = (TextColumn("models"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("models", total=len(names), completed=len(found))
        for outcome in _examined(missing, jobs, examine):
            kept.put(outcome)
            found[outcome.name] = outcome
            progress.advance(bar)
            console.print(outcome.line(), highlight=False, markup=False, soft_wrap=True)
    return [found[name] for name in names]


def in_a_process(name: str) -> Outcome:
    """Examine a model in a process of its own; what a process that dies or hangs had said by then counts."""
    command = [sys.executable, "-m", f"{__package__}.examine", name]
    path = os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    end = ""
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WALL_SECONDS)
        said = done.stdout
        if done.returncode:
            end = f"process ended with {done.returncode}: {' '.join(done.stderr[-100:].split())}".rstrip(": ")
    except subprocess.TimeoutExpired as expired:
        said = (expired.stdout or b"").decode()
        end = f"timeout ({WALL_SECONDS} s of wall clock)"
    outcomes = [line for line in said.splitlines() if line.startswith('{"name"')]
    outcome = Outcome(**json.loads(outcomes[-1])) if outcomes else Outcome(name)
    if end:
        outcome.failures["process"] = end
    return outcome


def _examined(names: Sequence[str], jobs: int, examine: Callable[[str], Outcome]) -> Iterator[Outcome]:
    """Outcomes in the order in which they come. What was not begun is dropped when the caller is interrupted."""
    pool = ThreadPoolExecutor(jobs)
    try:
        for future in as_completed([pool.submit(examine, name) for name in names]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)
