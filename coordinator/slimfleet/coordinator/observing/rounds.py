"""Round observers: `rounds.csv` and log lines, a line a round, while the run goes on."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from slimfleet.compression.files import naming, write_atomically
from slimfleet.coordinator.learning.row import RoundRow
from slimfleet.coordinator.observing.events import Closed, Event

log = logging.getLogger(__name__)


class RoundsCsv:
    """Observer that keeps `rounds.csv` in `folder` up to date, rounds of earlier processes included."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "rounds.csv"
        self._lines = 0

    def __call__(self, event: Event) -> None:
        """Write the rounds that are not in the file yet. Raises DiskError where the disk refuses."""
        if not isinstance(event, Closed):
            return
        rows = event.state.rows
        if self._lines == 0:
            write_atomically(self._path, csv_of(RoundRow, rows), durable=False)
        else:
            with naming(self._path), self._path.open("ab") as file:
                file.write(csv_of(RoundRow, rows[self._lines :], header=False))
        self._lines = len(rows)


def csv_of(kind: type[Any], rows: Sequence[Any], header: bool = True) -> bytes:
    """One line a row, a dataclass of this kind, under the field names; an unknown value is an empty cell, a table is in
    JSON."""
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(kind)], lineterminator="\n")
    if header:
        table.writeheader()
    for row in rows:
        values = asdict(row)
        table.writerow({k: json.dumps(v) if isinstance(v, dict) else v for k, v in values.items()})
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
