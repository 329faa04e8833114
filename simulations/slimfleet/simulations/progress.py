"""Progress of a run: a live line on a terminal, a few plain lines anywhere else."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, TaskID

from slimfleet.compression.edge.terminal import error_console, live_line
from slimfleet.compression.reporting import units
from slimfleet.coordinator import Closed, Event, Planned, RoundRow, State
from slimfleet.coordinator.reporting.words import own_budgets

__all__ = ["RoundProgress"]

_PLAIN_LINES = 10
"""About how many lines a run prints where there is no terminal."""


class RoundProgress:
    """Observer that shows the rounds of one run after another; a context manager, so that the terminal is restored."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or error_console()
        self._live = live_line(self._console, MofNCompleteColumn())
        self._task: TaskID | None = None
        self._state: State | None = None
        self._score = "not evaluated"
        self._uplink_bytes = 0
        self._energy_j = 0.0

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        """Show a run when it plans its first round, and every round that is closed."""
        if isinstance(event, Planned) and event.state is not self._state:
            self._begin(event)
        elif isinstance(event, Closed):
            self._closed(event)

    def _begin(self, event: Planned) -> None:
        self._state, settings, rows = event.state, event.settings, event.state.rows
        self._score = next(filter(None, map(_score, reversed(rows))), "not evaluated")
        self._uplink_bytes = sum(row.uplink_bytes for row in rows)
        self._energy_j = sum(row.energy_j for row in rows)
        self._task = self._live.add_task(
            escape(settings.name), total=settings.rounds, completed=len(rows), state=""
        )
        own = own_budgets(settings.budget)
        if own and settings.planner.policy != "fixed":  # which knows no budgets
            self._print(f"{settings.name}: {own}")

    def _closed(self, event: Closed) -> None:
        row, title, rounds = event.row, event.settings.name, event.settings.rounds
        self._score = _score(row) or self._score
        self._uplink_bytes += row.uplink_bytes
        self._energy_j += row.energy_j
        state = f"{self._score}, sent {units.data(self._uplink_bytes)}, {units.energy(self._energy_j)}"
        if self._task is not None:
            self._live.update(self._task, advance=1, state=state)
        is_worth_a_line = row.round == rounds or row.round % max(1, rounds // _PLAIN_LINES) == 0
        if not self._console.is_terminal and is_worth_a_line:
            self._print(f"{title}: round {row.round} of {rounds}, {state}")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _score(row: RoundRow) -> str:
    """What a round's model is judged by: its accuracy, or the loss where the task has none; empty where neither is."""
    if row.accuracy is not None:
        return f"accuracy {units.percent(row.accuracy)}"
    return "" if row.loss is None else f"loss {row.loss:.4g}"
