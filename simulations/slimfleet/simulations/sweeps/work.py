"""Work on cells: each an ordinary run, begun, taken up or found finished; here, in processes, or on Ray."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from slimfleet.compression.errors import SlimfleetError
from slimfleet.compression.files import write_atomically
from slimfleet.coordinator import Closed, Event
from slimfleet.simulations.results_folder import refuse_edited
from slimfleet.simulations.sweeps.cells import Cell
from slimfleet.simulations.sweeps.folders import finished_run

__all__ = ["Execute", "Tick", "in_turn", "is_finished", "on_ray", "side_by_side"]

Tick = Callable[[], None]
"""Called now and then while cells are at work."""
Ended = tuple[Cell, str]
"""A cell that has ended, and why it failed in one line; empty where it did not."""
Execute = Callable[[Sequence[Cell], Tick], Iterator[Ended]]

_TICK_S = 0.5
_TRACEBACK = "traceback.txt"


def is_finished(cell: Cell) -> bool:
    """Whether the cell's run is over. Raises BadInput where its folder holds a run of other settings."""
    if not cell.folder.exists():
        return False
    refuse_edited(cell.folder, cell.scenario, place=f"the sweep, for {cell.folder}")
    if not (cell.folder / "summary.json").exists():
        return False
    return bool(
        finished_run(cell.folder, cell.name, cell.folder).summary["rounds"]
        == cell.scenario.coordinator.rounds
    )


def work(cell: Cell, tick: Tick = lambda: None) -> str:
    """Run a cell, from its last checkpoint where there is one. Returns why it failed, in one line, or nothing.

    What nobody foresaw leaves its traceback in the cell's folder: it must not end the cells beside it.
    """
    from slimfleet.simulations.run import simulate  # loads torch, Flower and the plots

    def tell(event: Event) -> None:
        if isinstance(event, Closed):
            tick()

    try:
        simulate(cell.scenario, cell.folder, resume=cell.folder.exists(), progress=tell)
    except SlimfleetError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - the line and the traceback tell it
        write_atomically(cell.folder / _TRACEBACK, traceback.format_exc().encode())
        return f"{type(error).__name__}: {error} ({cell.folder / _TRACEBACK})"
    return ""


def in_turn(cells: Sequence[Cell], tick: Tick) -> Iterator[Ended]:
    """One cell after another, in this process."""
    for cell in cells:
        yield cell, work(cell, tick)


def side_by_side(jobs: int) -> Execute:
    """Up to `jobs` cells at once, each in a process of its own.

    Where this process ends, however, they end too.
    """

    def execute(cells: Sequence[Cell], tick: Tick) -> Iterator[Ended]:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["slimfleet.simulations.run"])
        waiting, running = list(cells), dict[Any, tuple[Cell, BaseProcess, Connection]]()
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    cell = waiting.pop(0)
                    here, there = context.Pipe(duplex=False)
                    process = context.Process(target=_in_process, args=(cell, there))
                    process.start()
                    there.close()
                    running[process.sentinel] = cell, process, here
                for sentinel in wait(list(running), timeout=_TICK_S):
                    yield _ended(*running.pop(sentinel))
                tick()
        finally:
            for _, one, _ in running.values():
                one.terminate()
            for _, one, _ in running.values():
                one.join()

    return execute


def on_ray(workers: int) -> Execute:
    """Up to `workers` cells at once, each in a worker process of Ray; 0 takes one for each processor core."""

    def execute(cells: Sequence[Cell], tick: Tick) -> Iterator[Ended]:
        import ray
        from ray.exceptions import RayError

        from slimfleet.simulations.grids.ray_daemons import local_ray

        if not cells:
            return
        with local_ray(workers):
            remote = ray.remote(num_cpus=1, max_retries=0)(work)
            running = {remote.remote(replace(c, folder=c.folder.absolute())): c for c in cells}
            while running:
                ready, _ = ray.wait(list(running), num_returns=1, timeout=_TICK_S)
                for reference in ready:
                    cell = running.pop(reference)
                    try:
                        yield cell, ray.get(reference)
                    except RayError as error:
                        yield cell, f"its worker ended: {type(error).__name__}"
                tick()

    return execute


def _in_process(cell: Cell, answers: Connection) -> None:
    """What a process of `side_by_side` does. Ctrl-C is for its parent, which ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    answers.send(work(cell))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _ended(cell: Cell, process: BaseProcess, answers: Connection) -> Ended:
    process.join()
    with answers:
        try:
            return cell, str(answers.recv())
        except EOFError:
            return cell, f"its process ended with exit code {process.exitcode}"
