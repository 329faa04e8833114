"""Every method on every seed, several at a time in processes of their own, those done before left out."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from pathlib import Path

import cache
import torch
from fedavg import fedavg
from federation import Federation
from machine import machine
from methods import METHODS
from model import schema
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from settings import Settings
from uplink import Uplink

Key = tuple[str, int, str]
"""Method, seed and fingerprint."""


def sweep(
    settings: Settings, names: Sequence[str], seeds: Sequence[int], file: Path, jobs: int
) -> list[cache.Run]:
    """The runs of `names` on `seeds`, seed by seed: taken from `file` where they are there, else done and added."""
    prints = {name: cache.fingerprint(settings, METHODS[name], schema()) for name in names}
    keys = [(name, seed, prints[name]) for seed in seeds for name in names]
    runs = cache.load(file)
    slow_first = [(name, seed, prints[name]) for seed in seeds for name in reversed(names)]
    missing = [key for key in slow_first if key not in runs]
    console = Console(stderr=True)
    columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("runs", total=len(keys), completed=len(keys) - len(missing))
        for key, run in _finished(settings, missing, jobs):
            cache.append(file, run)
            runs[key] = run
            progress.advance(bar)
            console.print(_line(run), highlight=False)
    return [runs[key] for key in keys]


def _finished(settings: Settings, keys: Sequence[Key], jobs: int) -> Iterator[tuple[Key, cache.Run]]:
    """Runs in the order in which they end. Those that were not begun are dropped when the caller is interrupted."""
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=torch.set_num_threads, initargs=(1,))
    try:
        begun = {pool.submit(_run, settings, *key): key for key in keys}
        for future in as_completed(begun):
            yield begun[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _run(settings: Settings, name: str, seed: int, fingerprint: str) -> cache.Run:
    federation, method = _federation(settings, seed), METHODS[name]
    begun = time.perf_counter()
    uplink = Uplink(federation.schema, method.compressor, method.feedback, seed)
    rounds = list(fedavg(federation, uplink))
    return cache.Run(name, seed, fingerprint, time.perf_counter() - begun, machine(), rounds)


@lru_cache(maxsize=1)
def _federation(settings: Settings, seed: int) -> Federation:
    return Federation(settings, seed)


def _line(run: cache.Run) -> str:
    last, sent = run.rounds[-1], sum(r.uplink_bytes for r in run.rounds)
    assert last.accuracy is not None
    return (
        f"seed {run.seed}, {run.method}: accuracy {100 * last.accuracy:.1f} % after {len(run.rounds)} rounds, "
        f"sent {sent:,} bytes, {run.seconds:.0f} s"
    )
