"""Round observers: CSV files and log lines, while the run goes on."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from slimfleet.compression.files import naming, write_atomically
from slimfleet.coordinator.learning.class_row import ClassRow
from slimfleet.coordinator.learning.row import RoundRow
from slimfleet.coordinator.observing.events import Closed, Event

log = logging.getLogger(__name__)


class RoundsCsv:
    """Observer that keeps `rounds.csv` and `classes.csv` in `folder` up to date, rounds of earlier processes included.

    The first has a line a round, the second a line for each device class in a round.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rounds = 0

    def __call__(self, event: Event) -> None:
        """Write the rounds that are not in the files yet. Raises DiskError where the disk refuses."""
        if not isinstance(event, Closed):
            return
        rows, is_new = event.state.rows[self._rounds :], self._rounds == 0
        self._write("rounds.csv", csv_of(RoundRow, rows, is_new), is_new)
        self._write("classes.csv", _classes_csv(rows, is_new), is_new)
        self._rounds = len(event.state.rows)

    def _write(self, name: str, lines: bytes, is_new: bool) -> None:
        path = self._folder / name
        if is_new:
            write_atomically(path, lines, durable=False)
        else:
            with naming(path), path.open("ab") as file:
                file.write(lines)


def csv_of(kind: type[Any], rows: Sequence[Any], header: bool = True) -> bytes:
    """One line a row, a dataclass of this kind, under the field names; an unknown value is an empty cell, a table is in
    JSON."""
    names = [field.name for field in fields(kind) if field.metadata.get("csv", True)]
    return _csv(names, ([getattr(row, name) for name in names] for row in rows), header)


def _classes_csv(rows: Sequence[RoundRow], header: bool) -> bytes:
    names = [field.name for field in fields(ClassRow)]
    lines = ([row.round, *(getattr(each, name) for name in names)] for row in rows for each in row.classes)
    return _csv(["round", *names], lines, header)


def _csv(names: Sequence[str], lines: Iterable[Sequence[Any]], header: bool) -> bytes:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    if header:
        table.writerow(names)
    for line in lines:
        table.writerow([json.dumps(value) if isinstance(value, dict) else value for value in line])
    return text.getvalue().encode()


def log_rounds(event: Event) -> None:
    """Observer that logs every closed round."""
    if isinstance(event, Closed):
        log.info("%s", line_of(event.row, event.settings.rounds))


def line_of(row: RoundRow, rounds: int) -> str:
    """A round in one line."""
    if row.accuracy is not None:
        score = f"accuracy {row.accuracy:.3f}"
    else:
        score = "not evaluated" if row.loss is None else f"loss {row.loss:.4g}"
    alarm = f"; {row.alarm}" if row.alarm else ""
    return (
        f"round {row.round} of {rounds}: {row.completed} of {row.selected} devices done, {score}, "
        f"{row.uplink_bytes:,} bytes up, {row.downlink_bytes:,} down, {row.energy_j:.3g} J{alarm}"
    )
