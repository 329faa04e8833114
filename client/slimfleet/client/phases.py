"""Phases of a round on a real device: when each was under way, and what each cost.

The clock tells when; a meter that has samples tells how much, by time; without one the profile's power does. What a
meter reads is shared out in whole: the phases sum to the reading.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import fsum

from slimfleet.client.meters import Reading, net_of_idle
from slimfleet.compression.types import PHASES, PhaseCost, PhaseName

__all__ = ["POWER_SPREAD", "Span", "Spans", "computing", "measured"]

POWER_SPREAD = 0.5
"""How far the power of a device at work may be from its profile's, as a share: boards differ by so much between two
kinds of full load (`profiles.csv`: a Pi 4B draws 5.0 W under stress and 7.2 W under HPL)."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time in one phase."""

    phase: PhaseName
    begin_s: float
    end_s: float
    busy_s: float
    """The part of it that the process worked; the rest it waited."""


@dataclass(slots=True)
class Spans:
    """Stretches of a round, without gaps, in order of time."""

    spans: list[Span] = field(default_factory=list)

    def add(self, span: Span) -> None:
        """Add the next one; neighbours of one phase become one."""
        if self.spans and self.spans[-1].phase == span.phase:
            last = self.spans.pop()
            span = Span(span.phase, last.begin_s, span.end_s, last.busy_s + span.busy_s)
        self.spans.append(span)

    def time_s(self, phase: PhaseName) -> float:
        """Seconds in one phase."""
        return fsum(span.end_s - span.begin_s for span in self.spans if span.phase == phase)

    def busy_s(self, phase: PhaseName) -> float:
        """Seconds at work in one phase."""
        return fsum(span.busy_s for span in self.spans if span.phase == phase)


def computing(spans: Spans, train_w: float) -> dict[PhaseName, PhaseCost]:
    """Each phase at the profile's power for the time at work; energy above idle, called estimated."""
    costs = {}
    for phase in PHASES:
        joules = train_w * spans.busy_s(phase)
        costs[phase] = PhaseCost(
            time_s=spans.time_s(phase), energy_j=joules, uncertainty_j=POWER_SPREAD * joules
        )
    return costs


def measured(spans: Spans, reading: Reading, idle_w: float, train_w: float) -> dict[PhaseName, PhaseCost]:
    """The reading, less idle power, shared out over the phases.

    By time where the reading has a trace, whose clock is that of the spans; the uncertainty is then the reading's
    own, and the energy of the samples that straddle two phases. Otherwise in proportion to the profile's estimate,
    and called estimated. A phase that drew less than idle gets nothing, and the others accordingly less.
    """
    total_j = net_of_idle(reading, idle_w).energy_j
    guess = computing(spans, train_w)
    if not reading.trace:
        return _scaled(guess, total_j)
    net, doubt = _by_time(spans.spans, reading.trace, idle_w)
    positive_j = fsum(max(joules, 0.0) for joules in net.values())
    factor = total_j / positive_j if positive_j > 0 else 0.0
    return {
        phase: PhaseCost(
            time_s=guess[phase].time_s,
            energy_j=factor * max(net[phase], 0.0),
            source=reading.source,
            uncertainty_j=doubt[phase]
            + abs(factor * max(net[phase], 0.0) - net[phase])
            + reading.error * max(net[phase], 0.0),
        )
        for phase in PHASES
    }


def _scaled(guess: dict[PhaseName, PhaseCost], total_j: float) -> dict[PhaseName, PhaseCost]:
    """The sum that a meter read, in proportion to estimates: to times where there are none."""
    weights = {phase: cost.energy_j for phase, cost in guess.items()}
    if not fsum(weights.values()):
        weights = {phase: cost.time_s for phase, cost in guess.items()}
    if not fsum(weights.values()):
        weights["startup"] = 1.0
    whole = fsum(weights.values())
    shares = {phase: total_j * weight / whole for phase, weight in weights.items()}
    return {
        phase: PhaseCost(time_s=cost.time_s, energy_j=joules, uncertainty_j=POWER_SPREAD * joules)
        for (phase, cost), joules in zip(guess.items(), shares.values(), strict=True)
    }


def _by_time(
    spans: Sequence[Span], trace: Sequence[tuple[float, float]], idle_w: float
) -> tuple[dict[PhaseName, float], dict[PhaseName, float]]:
    """Joules above idle of each phase, which may be negative, and how much of them may belong to a neighbour."""
    begin, end = trace[0][0], trace[-1][0]
    net = dict.fromkeys(PHASES, 0.0)
    doubt = dict.fromkeys(PHASES, 0.0)
    for span in spans:
        inside_s = min(max(span.end_s, begin), end) - min(max(span.begin_s, begin), end)
        gross_j = _until(trace, span.end_s) - _until(trace, span.begin_s)
        net[span.phase] += gross_j - idle_w * inside_s
    for one, other in pairwise(spans):
        straddling_j = _around(trace, one.end_s)
        doubt[one.phase] += straddling_j
        doubt[other.phase] += straddling_j
    return net, doubt


def _until(trace: Sequence[tuple[float, float]], moment_s: float) -> float:
    """Joules from the start of the trace to a moment, at constant power between two samples."""
    place = bisect_right(trace, moment_s, key=lambda point: point[0])
    if place == 0:
        return trace[0][1]
    if place == len(trace):
        return trace[-1][1]
    (t0, e0), (t1, e1) = trace[place - 1], trace[place]
    return e0 + (e1 - e0) * (moment_s - t0) / (t1 - t0)


def _around(trace: Sequence[tuple[float, float]], moment_s: float) -> float:
    """Joules between the two samples around a moment; 0 where it falls on one, or outside."""
    place = bisect_left(trace, moment_s, key=lambda point: point[0])
    if place in (0, len(trace)) or trace[place][0] == moment_s:
        return 0.0
    return trace[place][1] - trace[place - 1][1]
