"""Pacing: how much work may be in flight, when a round is due, and what becomes of work that comes after it.

Synchronous rounds wait for each other's devices; asynchronous ones step whenever a buffer is full (FedBuff, Nguyen et
al. 2022, arXiv 2106.06639). Both are these rules over one state: nothing else knows the mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Literal

from slimfleet.coordinator.quantile import nearest_rank
from slimfleet.coordinator.settings import CoordinatorSettings, PacingSettings

if TYPE_CHECKING:
    from slimfleet.coordinator.state import State

Unused = Literal["late", "outdated"]


def wanted(state: State, settings: CoordinatorSettings) -> int:
    """How many devices should be given work now.

    A synchronous round asks once, when it opens. An asynchronous one replaces a device that failed at once, and one
    that delivered after the next step, so that new work starts from the newest model. Where too few devices were
    found, none is looked for again before the next step.
    """
    opened, pacing = state.open_round, settings.pacing
    if pacing.mode == "synchronous":
        return settings.selection.per_round + pacing.surplus if opened is None else 0
    if opened is None:
        return max(pacing.concurrency - len(state.in_flight), 0)
    if opened.found_too_few:
        return 0
    return max(pacing.concurrency - len(state.in_flight) - opened.mean.updates, 0)


def is_due(state: State, settings: CoordinatorSettings, now_s: float) -> bool:
    """Whether the open round should be closed: it has its updates, waits for nobody, or its deadline has come."""
    opened = state.open_round
    if opened is None:
        return False
    if opened.mean.updates >= settings.quota or now_s >= opened.closes_s:
        return True
    waits_for_all = settings.pacing.mode == "asynchronous"
    return not (len(state.in_flight) if waits_for_all else state.in_flight.of_version(opened.number))


def next_alarm_s(state: State, settings: CoordinatorSettings) -> float:
    """The first moment at which something is to be done even if no answer comes: a deadline, or a device given up."""
    closes_s = inf if state.open_round is None else state.open_round.closes_s
    return min(closes_s, gives_up_s(settings, state.in_flight.first_sent_s()))


def gives_up_s(settings: CoordinatorSettings, sent_s: float) -> float:
    """When work that was sent at `sent_s` is given up."""
    return sent_s + settings.round_timeout_s


def closes_s(pacing: PacingSettings, now_s: float, predicted_s: Sequence[float]) -> float:
    """The deadline of a round whose devices are given work now and take so long, as predicted; inf for none."""
    if pacing.mode == "asynchronous" or pacing.deadline == "none" or not predicted_s:
        return inf
    return now_s + pacing.deadline_factor * nearest_rank(predicted_s, pacing.deadline_quantile)


def too_late(settings: CoordinatorSettings, staleness: int, updates: int) -> tuple[Unused, str] | None:
    """Why a good update is not used, as a reason and in a sentence; None where it is.

    Its device was given the model `staleness` steps ago, and the open round has so many updates already.
    """
    pacing = settings.pacing
    if pacing.mode == "synchronous" and staleness > 0:
        return "late", "its round was closed before it came"
    if staleness > pacing.largest_staleness:
        return (
            "outdated",
            f"the model that it starts from is {staleness} steps old, the limit is {pacing.largest_staleness}",
        )
    if updates >= settings.quota:
        return "late", f"the round has the {settings.quota} updates that it waits for"
    return None


def damping(pacing: PacingSettings, staleness: int) -> float:
    """Factor on an update whose device was given the model so many steps ago: (1 + staleness)**-a, as FedBuff has it;
    exactly 1 for a fresh one. The mean is still over all updates, so that stale ones move the model less.
    """
    if pacing.staleness == "none" or staleness == 0:
        return 1.0
    return float((1 + staleness) ** -pacing.staleness_exponent)
