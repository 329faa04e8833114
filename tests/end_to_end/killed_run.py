"""Run digits and die by SIGKILL, for test_resume.py: `killed_run.py OUT between|within`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from slimfleet.coordinator import Answer, Event, Observer, Planned, Saved
from slimfleet.simulations import load_scenario, simulate

OPTIONS = {"rounds": "5", "fleet.devices": "40", "selection.per_round": "10", "planner.widths": "[1.0, 0.5]"}
KILLED_IN = 3
"""The round after which, or within which, the process dies."""
ANSWERS = 6
"""Devices of that round that have answered by then, and left their residuals on disk."""


class Dies:
    """Observer that kills the process `between` two rounds, when the checkpoint is written, or `within` one."""

    def __init__(self, when: str) -> None:
        self._when = when
        self._round = 0
        self._answers = 0

    def __call__(self, event: Event) -> None:
        match event:
            case Planned():
                self._round, self._answers = event.round_number, 0
            case Answer():
                self._answers += 1
                if (self._when, self._round, self._answers) == ("within", KILLED_IN, ANSWERS):
                    os.kill(os.getpid(), signal.SIGKILL)
            case Saved() if (self._when, self._round) == ("between", KILLED_IN):
                os.kill(os.getpid(), signal.SIGKILL)


def run(out: Path, *observers: Observer) -> None:
    """The run, to its end where nothing ends it."""
    simulate(load_scenario("digits", OPTIONS), out, observers=observers)


if __name__ == "__main__":
    run(Path(sys.argv[1]), Dies(sys.argv[2]))
