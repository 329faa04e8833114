"""Run digits and die by SIGKILL: `killed_run.py OUT between|within`. Started by test_resume.py."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from slimfleet.coordinator import RoundRow
from slimfleet.simulations import load_scenario, simulate
from slimfleet.simulations.grids import local

OPTIONS = {"rounds": "5", "fleet.devices": "40", "selection.per_round": "10", "planner.widths": "[1.0, 0.5]"}
KILLED_IN = 3
"""The round after which, or within which, the process dies."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Between:
    """Dies when the round has been closed and its checkpoint written."""

    def began(self, title: str, first_round: int, rounds: int) -> None:
        """Not yet."""

    def closed(self, row: RoundRow) -> None:
        """Die after the chosen round."""
        if row.round == KILLED_IN:
            die()


def within() -> None:
    """Die when some devices of the chosen round have answered, and left their residuals on disk."""
    submissions, answers = 0, 0
    submit, collect = local.LocalEngine.submit, local.LocalEngine.collect

    def counting_submit(self, messages):  # type: ignore[no-untyped-def]
        nonlocal submissions, answers
        submissions, answers = submissions + 1, 0
        return submit(self, messages)

    def dying_collect(self, timeout_s):  # type: ignore[no-untyped-def]
        nonlocal answers
        replies = collect(self, timeout_s)
        answers += len(replies)
        if submissions == KILLED_IN + 1 and answers == 6:  # the first submission registers
            die()
        return replies

    local.LocalEngine.submit, local.LocalEngine.collect = counting_submit, dying_collect  # type: ignore[method-assign]


if __name__ == "__main__":
    out, when = Path(sys.argv[1]), sys.argv[2]
    if when == "within":
        within()
    simulate(load_scenario("digits", OPTIONS), out, watcher=Between() if when == "between" else None)
