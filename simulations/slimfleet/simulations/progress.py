"""How a run shows that it goes on: a live line on a terminal, a few plain lines anywhere else."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from slimfleet.coordinator import RoundRow
from slimfleet.simulations import units

PLAIN_LINES = 10
"""About how many lines a run prints where there is no terminal."""


class RoundProgress:
    """Watches the rounds of one run after another; a context manager, so that the terminal is restored."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._live = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._title = ""
        self._rounds = 0
        self._uplink_bytes = 0
        self._energy_j = 0.0

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def began(self, title: str, first_round: int, rounds: int) -> None:
        """A run of `rounds` rounds is about to open `first_round` (1, or later when it is resumed)."""
        self._title, self._rounds = title, rounds
        self._uplink_bytes, self._energy_j = 0, 0.0
        self._task = self._live.add_task(escape(title), total=rounds, completed=first_round - 1, state="")

    def closed(self, row: RoundRow) -> None:
        """A round has been closed."""
        self._uplink_bytes += row.uplink_bytes
        self._energy_j += row.energy_j
        state = (
            f"accuracy {units.percent(row.trailing_accuracy)}, "
            f"sent {units.data(self._uplink_bytes)}, {units.energy(self._energy_j)}"
        )
        if self._task is not None:
            self._live.update(self._task, advance=1, state=state)
        done = row.round
        if not self._console.is_terminal and self._is_worth_a_line(done):
            line = f"{self._title}: round {done} of {self._rounds}, {state}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _is_worth_a_line(self, done: int) -> bool:
        return done == self._rounds or done % max(1, self._rounds // PLAIN_LINES) == 0
