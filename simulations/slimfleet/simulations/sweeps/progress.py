"""Progress of a sweep: a live line over all rounds of all cells on a terminal, a line a cell anywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import TaskProgressColumn

from slimfleet.compression.edge.terminal import error_console, live_line
from slimfleet.simulations.sweeps.cells import Cell

__all__ = ["CellProgress"]


class CellProgress:
    """Shows the cells that have ended and the rounds that are closed; a context manager, as a live line needs."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or error_console()
        self._live = live_line(self._console, TaskProgressColumn())
        self._task = self._live.add_task("cells", total=None, state="")
        self._at_work: list[Cell] = []
        self._count = self._ended = self._rounds = 0

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def begin(self, cells: Sequence[Cell]) -> None:
        """All cells of the sweep."""
        self._at_work, self._count = list(cells), len(cells)
        self._live.update(self._task, total=sum(cell.scenario.coordinator.rounds for cell in cells))

    def look(self) -> None:
        """Count the rounds that are closed."""
        done = self._rounds + sum(map(_closed_rounds, self._at_work))
        state = f"{self._ended} of {self._count} cells done"
        self._live.update(self._task, completed=done, state=state)

    def ended(self, cell: Cell, problem: str) -> None:
        """Count a cell, and print its line where there is no terminal or it has failed."""
        self._ended += 1
        self._rounds += cell.scenario.coordinator.rounds
        self._at_work.remove(cell)
        if problem or not self._console.is_terminal:
            line = (
                f"{self._ended} of {self._count}: {cell.name}: {f'failed: {problem}' if problem else 'done'}"
            )
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self.look()


def _closed_rounds(cell: Cell) -> int:
    """Lines of its rounds.csv, which is written round by round."""
    try:
        return max(0, (cell.folder / "rounds.csv").read_bytes().count(b"\n") - 1)
    except OSError:  # it has not begun
        return 0
