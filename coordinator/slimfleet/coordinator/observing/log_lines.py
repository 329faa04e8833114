"""Log lines: a round in one line, for a server without a terminal."""

from __future__ import annotations

import logging

from slimfleet.coordinator.learning.row import RoundRow
from slimfleet.coordinator.observing.events import Closed, Event

log = logging.getLogger(__name__)


def log_rounds(event: Event) -> None:
    """Observer that logs every closed round."""
    if isinstance(event, Closed):
        log.info("%s", line_of(event.row, event.settings.rounds))


def line_of(row: RoundRow, rounds: int) -> str:
    """A round in one line."""
    accuracy = "not evaluated" if row.accuracy is None else f"accuracy {row.accuracy:.3f}"
    return (
        f"round {row.round} of {rounds}: {row.completed} of {row.selected} devices done, {accuracy}, "
        f"{row.uplink_bytes:,} bytes up, {row.downlink_bytes:,} down, {row.energy_j:.3g} J"
    )
