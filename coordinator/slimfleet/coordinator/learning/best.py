"""Best model of a run: the one of the round whose trailing mean was the best.

Devices judge where they evaluate: their held-out examples are validation data. Where none ever does, the coordinator's
own evaluation judges. A single round swings; the mean over the last five evaluated rounds decides, of the
accuracy, or of the loss for a task without one. The model kept is the last of those five.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean
from typing import Literal

from slimfleet.coordinator.learning.row import TRAILING, RoundRow

__all__ = ["Best", "candidate", "is_better"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """Which model it is, and what spoke for it."""

    round: int
    """The round that made it; 0 is the model that the run began with."""
    accuracy: float | None
    """Mean over the last five evaluated rounds; None for a task without one."""
    loss: float
    """Likewise."""
    judged_by: Literal["devices", "server"]


def candidate(rows: Sequence[RoundRow]) -> Best | None:
    """The model that the last row is about, and how it did; None where it was not evaluated."""
    row = rows[-1]
    by_devices = row.device_loss is not None
    if by_devices:
        accuracies, losses = [r.device_accuracy for r in rows], [r.device_loss for r in rows]
    else:
        accuracies, losses = [r.accuracy for r in rows], [r.loss for r in rows]
    accuracy, loss = _trailing(accuracies), _trailing(losses)
    if losses[-1] is None or loss is None or not isfinite(loss):
        return None
    # Devices judge what they receive, which the round before made.
    number = row.round - 1 if by_devices else row.round
    return Best(round=number, accuracy=accuracy, loss=loss, judged_by="devices" if by_devices else "server")


def is_better(new: Best, old: Best | None) -> bool:
    """Whether a model takes the place of the best so far."""
    if old is None:
        return True
    if new.judged_by != old.judged_by:
        return new.judged_by == "devices"
    if new.accuracy is not None and old.accuracy is not None:
        return (new.accuracy, -new.loss) > (old.accuracy, -old.loss)
    return new.loss < old.loss


def _trailing(values: Sequence[float | None]) -> float | None:
    known = [value for value in values[-_REACH:] if value is not None][-TRAILING:]
    return fmean(known) if known else None


_REACH = 1_000
"""Rows that are looked through: rounds without an evaluation lie between."""
