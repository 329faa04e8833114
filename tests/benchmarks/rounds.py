"""Time to an accuracy of rounds that wait, rounds that close early, and updates that do not wait, in virtual time.

    python tests/benchmarks/rounds.py docs/results

writes `rounds.md` there; a few minutes on one core. `--seeds 0` and `--only waiting asynchronous` for a part, which is
printed instead.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from page_parts import table

from slimfleet.compression.files import write_atomically
from slimfleet.compression.reporting import units
from slimfleet.coordinator import Closed, Event
from slimfleet.simulations import load_scenario, simulate
from slimfleet.simulations.world import BETWEEN_ROUNDS_S

ACCURACY = 0.90
SEEDS = (0, 1, 2)
SIGMA = 1.0
DROPOUT = 0.3

POWER_W = 0.05

COMMON = {
    "fleet.devices": "150",
    "fleet.speed_noise": str(SIGMA),
    "fleet.dropout": str(DROPOUT),
    "selection.policy": "uniform",
    "budget": f"{{power_w = {POWER_W}}}",
    "planner.widths": "[1.0]",
    "planner.local_steps": "[4]",
    "planner.nmse": "[0.1]",
    "client.learning_rate": "0.02",
    "server.averaging": "0.0",
    "server.momentum": "0.0",
}
WAYS: Mapping[str, Mapping[str, str]] = {
    "waiting": {},
    "deadline": {"pacing.deadline": "predicted"},
    "over-selection": {"pacing.surplus": "14"},
    "asynchronous": {"pacing.mode": "asynchronous", "pacing.buffer": "10", "pacing.concurrency": "34"},
}
"""Name -> what it changes; the first is what the others are compared with."""
ROUNDS = 120
"""A run that has not come to the accuracy by then counts as never."""


@dataclass(frozen=True, slots=True)
class Reached:
    """What it took until the model first had the accuracy, work in flight included."""

    steps: int
    time_s: float
    """Virtual time at work: without the pauses between synchronous rounds."""
    paused_s: float
    devices: int
    """That were given work."""
    energy_j: float
    uplink_bytes: int
    downlink_bytes: int


class Stop(Exception):
    """The accuracy is reached."""


class Watch:
    """Observer that stops the run once the accuracy is reached."""

    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s
        self.reached: Reached | None = None

    def __call__(self, event: Event) -> None:
        if not isinstance(event, Closed) or event.row.accuracy is None or event.row.accuracy < ACCURACY:
            return
        rows, in_flight = event.state.rows, event.state.in_flight.values()
        paused_s = self._pause_s * len(rows)
        self.reached = Reached(
            steps=len(rows),
            time_s=sum(row.virtual_time_s for row in rows) - paused_s,
            paused_s=paused_s,
            devices=sum(row.selected for row in rows),
            energy_j=sum(row.energy_j for row in rows) + sum(each.predicted.energy_j for each in in_flight),
            uplink_bytes=sum(row.uplink_bytes for row in rows),
            downlink_bytes=sum(row.downlink_bytes for row in rows)
            + sum(len(each.payload) for each in in_flight),
        )
        raise Stop


def measured(way: str, seed: int) -> Reached:
    """One run."""
    changes = WAYS[way]
    watch = Watch(0.0 if changes.get("pacing.mode") == "asynchronous" else BETWEEN_ROUNDS_S)
    scenario = load_scenario("digits", COMMON | dict(changes) | {"seed": str(seed), "rounds": str(ROUNDS)})
    with tempfile.TemporaryDirectory() as out:
        try:
            simulate(scenario, Path(out) / "run", observers=[watch])
        except Stop:
            assert watch.reached is not None
            return watch.reached
    raise SystemExit(f"{way}, seed {seed}: {ACCURACY:.0%} was not reached in {ROUNDS} rounds")


def main() -> None:
    """Measure, and write the page or print its tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--only", nargs="+", default=list(WAYS), choices=list(WAYS))
    options = parser.parse_args()
    results = {way: [measured(way, seed) for seed in options.seeds] for way in options.only}
    text = page(results, options.seeds)
    if options.folder is None:
        print(text)
    else:
        write_atomically(options.folder / "rounds.md", text.encode())


def page(results: Mapping[str, Sequence[Reached]], seeds: Sequence[int]) -> str:
    """The page, in Markdown."""
    rows = []
    for way, runs in results.items():
        rows.append(
            [
                way,
                " / ".join(units.duration(run.time_s) for run in runs),
                units.duration(fmean(run.paused_s for run in runs)),
                f"{fmean(run.steps for run in runs):.0f}",
                f"{fmean(run.devices for run in runs):.0f}",
                units.energy(fmean(run.energy_j for run in runs)),
                units.data(fmean(run.uplink_bytes for run in runs)),
                units.data(fmean(run.downlink_bytes for run in runs)),
            ]
        )
    head = [
        "",
        f"time at work, seeds {' / '.join(map(str, seeds))}",
        "pauses",
        "steps",
        "devices asked",
        "energy",
        "up",
        "down",
    ]
    return table(head, rows)


if __name__ == "__main__":
    main()
