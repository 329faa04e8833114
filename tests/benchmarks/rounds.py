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

from page_parts import table, when

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
    rows = [
        [
            way,
            " / ".join(f"{run.time_s:.1f}" for run in runs),
            *(ratio(results, way, other) for other in ("waiting", "deadline")),
            f"{fmean(run.paused_s for run in runs):.0f}",
            f"{fmean(run.steps for run in runs):.1f}",
            f"{fmean(run.devices for run in runs):.0f}",
            units.energy(fmean(run.energy_j for run in runs)),
            units.data(fmean(run.uplink_bytes for run in runs)),
            units.data(fmean(run.downlink_bytes for run in runs)),
        ]
        for way, runs in results.items()
    ]
    head = [
        "rounds",
        f"time at work, s, seeds {' / '.join(map(str, seeds))}",
        *("faster than waiting", "than with a deadline"),
        *("pauses, s", "steps", "devices asked", "energy", "sent up", "sent down"),
    ]
    settings = "; ".join(
        f"`{way}`: {', '.join(f'`{k} = {v}`' for k, v in WAYS[way].items()) or 'the defaults'}"
        for way in results
    )
    return INTRODUCTION.format(when=when(), settings=settings) + table(head, rows) + NOTES


def ratio(results: Mapping[str, Sequence[Reached]], way: str, other: str) -> str:
    """How many times faster one way is than the other, seed by seed: the mean, and the least."""
    if other not in results or other == way:
        return ""
    ratios = [theirs.time_s / ours.time_s for ours, theirs in zip(results[way], results[other], strict=True)]
    return f"{fmean(ratios):.2f}x (least {min(ratios):.2f}x)"


INTRODUCTION = f"""# Rounds that do not wait

Written by `make bench-rounds` ({{when}}). Virtual time until the global model first classifies {ACCURACY:.0%} of the
digits correctly, on {COMMON["fleet.devices"]} virtual devices. In each round {DROPOUT:.0%} of them vanish, and the
speed of each varies by a log-normal factor of sigma {SIGMA:g} (`fleet.speed_noise`, cut at two sigma). Devices train at
a mean power of {POWER_W:g} W, so that a round takes seconds, most of them training.

{{settings}}.

"""

NOTES = """

Energy, bytes and devices are means over the seeds, up to that moment and with the work in flight then. A device that
vanishes is noticed after as long as it was predicted to take. Time at work leaves out the minute between two
synchronous rounds (column *pauses*), which asynchronous updates do not have: with it they would look better still. What
is saved in time is paid in energy and bytes: by work that comes too late, and by stale updates, which count less.
"""


if __name__ == "__main__":
    main()
