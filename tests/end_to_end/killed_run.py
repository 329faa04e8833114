"""Run digits and die by SIGKILL, for test_resume.py: `killed_run.py OUT between|within MODE [BACKEND]`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from slimfleet.coordinator import Answer, Event, Observer, Planned, Saved
from slimfleet.simulations import load_scenario, simulate
from slimfleet.simulations.run import Backend

OPTIONS = {
    "rounds": "5", "fleet.devices": "40", "selection.per_round": "10",
    "planner.widths": "[1.0, 0.5]", "planner.local_steps": "[2, 4]",
}  # fmt: skip
MODES = {
    "waiting": {},
    "over-selection": {"pacing.surplus": "5"},
    "asynchronous": {"pacing.mode": "asynchronous", "pacing.buffer": "8", "pacing.concurrency": "16"},
}
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
            case Planned() if event.round_number != self._round:
                self._round, self._answers = event.round_number, 0
            case Answer():
                self._answers += 1
                if (self._when, self._round, self._answers) == ("within", KILLED_IN, ANSWERS):
                    os.kill(os.getpid(), signal.SIGKILL)
            case Saved() if (self._when, self._round) == ("between", KILLED_IN):
                os.kill(os.getpid(), signal.SIGKILL)


def run(out: Path, mode: str, *observers: Observer, backend: Backend = "local") -> None:
    """The run, to its end where nothing ends it."""
    scenario = load_scenario("digits", OPTIONS | MODES[mode] | {"fleet.dropout": "0.2"})
    simulate(scenario, out, backend=backend, observers=observers)


if __name__ == "__main__":
    out, when, mode, *others = sys.argv[1:]
    run(Path(out), mode, Dies(when), backend="ray" if others == ["ray"] else "local")
