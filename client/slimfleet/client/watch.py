"""Watch of a device over itself: its policy is asked before a round, between its steps and before the upload."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import time
from math import inf

from slimfleet.client.ledger import Balance, Ledger
from slimfleet.client.policy import Policy, reason_in_words, refusal
from slimfleet.compression import PolicyRefusal
from slimfleet.compression.types import UNKNOWN, Condition, EnergySource, PauseReason

__all__ = ["UNWATCHED", "Sense", "Watch", "WatchedLedger"]

Sense = Callable[[int, Balance], tuple[Condition, time]]
"""What a device finds of itself, and its local time: from the number of the round, 0 between rounds, and what the round
has spent so far. A real device looks at its sensors and its clock, a virtual one computes both."""

ALLOWS_ALL = Policy()

HYSTERESIS_C = 5.0
"""A device that got too warm in mid-round goes on once it is so much below the limit."""

COOLING_LOOK_S = 2.0
"""How often it looks."""

LONGEST_COOLING_S = 600.0
"""What has not helped by then will not: the round is given up."""


def unknown(round_number: int, spent: Balance) -> tuple[Condition, time]:
    """The sense of a device without sensors."""
    return UNKNOWN, time()


@dataclass(frozen=True, slots=True)
class Watch:
    """A policy, and what it is held against."""

    policy: Policy = ALLOWS_ALL
    sense: Sense = unknown

    def condition(self, round_number: int, spent: Balance) -> Condition:
        """The condition of the device now."""
        return self.sense(round_number, spent)[0]

    def check(self, round_number: int, spent: Balance) -> None:
        """Raise PolicyRefusal where the policy forbids to go on."""
        if self.policy == ALLOWS_ALL:
            return
        condition, clock_time = self.sense(round_number, spent)
        reason = refusal(self.policy, condition, clock_time)
        if reason is not None:
            words = reason_in_words(reason, self.policy, condition)
            raise PolicyRefusal(reason, f"by its own policy: {words}")

    def cooler(self) -> Watch:
        """The watch of a device that waits until it has cooled down."""
        return replace(self, policy=replace(self.policy, warmest_c=self.policy.warmest_c - HYSTERESIS_C))


UNWATCHED = Watch()
"""No policy and no senses."""


class WatchedLedger:
    """A ledger that lets nothing go on which the watch forbids: every method that enters work raises PolicyRefusal once
    the work is entered, so that the next step does not begin, or the update is not sent.

    Heat alone is waited out: a device that got too warm pauses until it is `HYSTERESIS_C` below the limit of its
    policy, and gives the round up only where that takes too long, or longer than `deadline_s`.
    """

    def __init__(
        self, ledger: Ledger, watch: Watch, round_number: int, deadline_s: float | None = None
    ) -> None:
        self._ledger, self._watch, self._round = ledger, watch, round_number
        self._forbids_nothing = watch.policy == ALLOWS_ALL
        self._deadline_s = inf if deadline_s is None else deadline_s

    def download(self, size_bytes: int) -> None:
        """Enter the download; the first step is next."""
        self._ledger.download(size_bytes)
        self._check()

    def evaluate(self, flops: float) -> None:
        """Enter the evaluation of some examples, and the pause after it."""
        self._ledger.evaluate(flops)
        self._check()

    def train(self, flops: float) -> None:
        """Enter a step, and the pause after it."""
        self._ledger.train(flops)
        self._check()

    def upload(self, size_bytes: int) -> None:
        """Enter the upload, unless it may not begin."""
        self._check()
        self._ledger.upload(size_bytes)

    def pause(self, seconds: float, reason: PauseReason) -> None:
        """Rest between two pieces of work."""
        self._ledger.pause(seconds, reason)

    def balance(self) -> Balance:
        """What has been spent so far."""
        return self._ledger.balance()

    def peak_memory_bytes(self, predicted: int) -> int:
        """Peak memory of the round so far."""
        return self._ledger.peak_memory_bytes(predicted)

    def close(self) -> tuple[Balance, EnergySource]:
        """End the round."""
        return self._ledger.close()

    def _check(self) -> None:
        if self._forbids_nothing:
            return
        spent = self._ledger.balance()
        watch, until_s = self._watch, min(spent.time_s + LONGEST_COOLING_S, self._deadline_s)
        while spent.time_s + COOLING_LOOK_S <= until_s:
            try:
                watch.check(self._round, spent)
            except PolicyRefusal as refusal:
                if refusal.reason != "too_warm":
                    raise
            else:
                return
            self._ledger.pause(COOLING_LOOK_S, "heat")
            watch, spent = self._watch.cooler(), self._ledger.balance()
        self._watch.check(self._round, spent)
