"""Events: what the coordinator's verbs return, and what observers receive.

An observer is a function of one event that matches on its type and ignores the others. The driver of the coordinator
calls the observers; the coordinator itself calls no observer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression import Evaluation
from slimfleet.coordinator.environment import Instant
from slimfleet.coordinator.learning.row import RoundRow
from slimfleet.coordinator.planning.skips import Skips
from slimfleet.coordinator.receiving.answer import Answer
from slimfleet.coordinator.sending.dispatch import Dispatch
from slimfleet.coordinator.settings import CoordinatorSettings

if TYPE_CHECKING:
    from slimfleet.coordinator.state import State

Phase = Literal["select", "train", "aggregate", "evaluate", "checkpoint"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A round cannot begin yet: fewer devices are ready than it needs. Told again only when their number changes."""

    ready: int
    """Devices that are connected and have registered."""
    needed: int

    @property
    def text(self) -> str:
        """For people."""
        return f"{self.ready} of {self.needed} devices are ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """Work has been planned and is in flight; devices without a plan are named with the reason."""

    round_number: int
    dispatches: tuple[Dispatch, ...]
    skipped: Skips
    """Node -> the constraint that left it without a plan."""
    reachable: NDArray[np.uint64]
    """Nodes that could take work, in order."""
    seconds: float
    """Wall-clock time of selecting, planning and encoding."""
    at: Instant
    """When it was in flight."""
    settings: CoordinatorSettings
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """Answers have been folded into the state: the round is over."""

    row: RoundRow
    answers: tuple[Answer, ...]
    """In order of node; unsolicited answers come last."""
    evaluation: Evaluation | None
    seconds: Mapping[Phase, float]
    """Wall-clock time of each phase of the round but selection."""
    settings: CoordinatorSettings
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A checkpoint has been written."""

    folder: Path
    size_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnedAway:
    """A gateway did not serve a call or a connection. Told to observers that count, in the gateway's own thread."""

    reason: str
    """A key of `STATUS`."""


Event = Waiting | Planned | Answer | Closed | Saved | TurnedAway
Observer = Callable[[Event], None]
