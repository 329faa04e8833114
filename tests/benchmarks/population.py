"""The driver's time and memory for fleets of a thousand to ten million devices: selection, planning, clock, batteries.

    python tests/benchmarks/population.py docs/results

writes `population.md` and `population.png` there; some minutes on one core. Each fleet is measured in a process of its
own. Devices do not train: each reports what its true figures say that the round cost it.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from page_parts import table, when

from slimfleet.compression import Report
from slimfleet.compression.files import write_atomically
from slimfleet.compression.types import USUAL_STARTUP
from slimfleet.coordinator import Answer, Coordinator, Dispatch, WallEnvironment
from slimfleet.coordinator.settings import NMSE
from slimfleet.simulations import load_scenario
from slimfleet.simulations.ledger import SimulatedLedger
from slimfleet.simulations.population import FIRST_NODE, Population, build_fleet, enrol
from slimfleet.simulations.scenario import build_task_of
from slimfleet.simulations.world import VirtualWorld, node_of

SIZES = (1_000, 10_000, 100_000, 1_000_000)
LARGEST = 10_000_000
ROUNDS = 6
"""Measured rounds; one more before them is not counted."""
PARTICIPANTS = (100, 1_000)
GRIDS: Mapping[str, Mapping[str, str]] = {
    "120 plans": {},
    "2,880 plans": {"planner.batch_sizes": "[32, 16, 8]", "planner.nmse": str(list(NMSE))},
}
"""The planner's grid of the scenario `digits`, and that of the defaults."""
FLOPS_PER_EXAMPLE = 2e5
"""Roughly what the model of `digits` takes."""
Figures = dict[str, Any]


def main() -> None:
    """Measure each fleet in a process of its own, and write the page, or print one measurement."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--one", nargs=4, metavar=("DEVICES", "PARTICIPANTS", "GRID", "ROUNDS"))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    if options.one is not None:
        devices, participants, grid, rounds = options.one
        print(json.dumps(measured(int(devices), int(participants), grid, int(rounds))))
        return
    small, large = GRIDS
    asked = [(devices, most, small) for most in reversed(PARTICIPANTS) for devices in SIZES if most < devices]
    asked += [(LARGEST, PARTICIPANTS[-1], small), (SIZES[-1], PARTICIPANTS[-1], large)]
    runs = [apart(*each, options.rounds) for each in asked]
    if options.folder is None:
        print(page(runs))
        return
    write_atomically(options.folder / "population.md", page(runs).encode())
    draw(runs, options.folder / "population.png")


def apart(devices: int, participants: int, grid: str, rounds: int) -> Figures:
    """One fleet in a fresh process."""
    asked = [str(devices), str(participants), grid, str(rounds)]
    done = subprocess.run(
        [sys.executable, __file__, "--one", *asked], check=True, stdout=subprocess.PIPE, text=True
    )
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    print(found, file=sys.stderr)
    return found


def measured(devices: int, participants: int, grid: str, rounds: int) -> Figures:
    """One fleet in this process: start-up, the parts of a round in CPU seconds and by the clock, and memory."""
    asked = {
        "rounds": "1000",
        "evaluate_every": "1000",
        "fleet.devices": str(devices),
        "task.partitions": "100",
        "selection.per_round": str(participants),
    }
    scenario = load_scenario("digits", asked | GRIDS[grid])
    task = build_task_of(scenario)
    Coordinator(task, scenario.coordinator, WallEnvironment())  # torch loads what a model takes
    marks = [now()]
    fleet = build_fleet(scenario.fleet, scenario.coordinator.seed)
    world = VirtualWorld(fleet)
    coordinator = Coordinator(task, scenario.coordinator, world)
    enrol(coordinator.state.registry, fleet, task)
    marks.append(now())
    laps = [lap(coordinator, world, fleet) for _ in range(rounds + 1)][1:]
    parts = ("plan", "clock", "step", "round")
    start = {"start_cpu_s": marks[1][0] - marks[0][0], "start_s": marks[1][1] - marks[0][1]}
    return {
        "devices": devices,
        "participants": participants,
        "grid": grid,
        **start,
        **{f"{part}_cpu_s": median(each[part][0] for each in laps) for part in parts},
        **{f"{part}_s": median(each[part][1] for each in laps) for part in parts},
        "records": len(list(coordinator.state.registry)),
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


def lap(coordinator: Coordinator, world: VirtualWorld, fleet: Population) -> dict[str, tuple[float, float]]:
    """One round: CPU seconds and seconds of planning, of the clock with the devices' true costs, and of the step."""
    marks = [now()]
    nodes = range(node_of(0), node_of(len(fleet)))
    planned = coordinator.plan(world.now_s(), coordinator.wanted(), nodes)
    marks.append(now())
    arriving: list[tuple[float, int, Dispatch, Report | None]] = []
    for dispatch in planned.dispatches:
        report = reported(fleet, dispatch)
        took_s = None if report is None else report.spent.time_s
        heapq.heappush(arriving, (world.arrival_s(dispatch, took_s), dispatch.node, dispatch, report))
    opened = coordinator.state.open_round
    assert opened is not None
    while arriving:
        moment_s, _, dispatch, report = heapq.heappop(arriving)
        world.reach(moment_s, more_may_come=False)
        del coordinator.state.in_flight[dispatch.plan_id]
        opened.answers.append(
            Answer(dispatch=dispatch, verdict="failed", reason="dropout")
            if report is None
            else Answer(dispatch=dispatch, verdict="accepted", report=report)
        )
    marks.append(now())
    coordinator.step()
    marks.append(now())
    spent = [(later[0] - earlier[0], later[1] - earlier[1]) for earlier, later in pairwise(marks)]
    whole = (marks[-1][0] - marks[0][0], marks[-1][1] - marks[0][1])
    return dict(zip(("plan", "clock", "step", "round"), (*spent, whole), strict=True))


def now() -> tuple[float, float]:
    """CPU seconds of this process, and the clock."""
    return time.process_time(), time.perf_counter()


def reported(fleet: Population, dispatch: Dispatch) -> Report | None:
    """What a device says that its round cost, by its true figures; None where it vanishes."""
    device, plan = fleet[dispatch.node - FIRST_NODE], dispatch.assignment.plan
    conditions = device.conditions(dispatch.version)
    if conditions.drops_out_at is not None:
        return None
    truth, power_w = conditions.applied(device.profile), dispatch.limits.power_w
    ledger = SimulatedLedger(truth, power_w, USUAL_STARTUP.time_s)
    ledger.download(len(dispatch.payload))
    ledger.train(FLOPS_PER_EXAMPLE * plan.local_steps * plan.batch_size)
    ledger.upload(dispatch.predicted.uplink_bytes)
    balance, source = ledger.close()
    spent = replace(
        dispatch.predicted, energy_j=balance.energy_j, radio_j=balance.radio_j, time_s=balance.time_s
    )
    return Report(spent=spent, source=source, loss=1.0, examples=17, steps=plan.local_steps)


def page(runs: Sequence[Figures]) -> str:
    """The page, in Markdown."""
    head = [
        *("devices", "a round asks", "grid", "round, CPU s", "of it planning", "clock", "step"),
        *("round, s", "start, CPU s", "start, s", "memory at most, GB", "devices with a record"),
    ]
    rows = [
        [
            f"{run['devices']:,}",
            f"{run['participants']:,}",
            run["grid"],
            *(f"{run[f'{part}_cpu_s']:.3f}" for part in ("round", "plan", "clock", "step")),
            f"{run['round_s']:.2f}",
            f"{run['start_cpu_s']:.2f}",
            f"{run['start_s']:.2f}",
            f"{run['peak_gb']:.2f}",
            f"{run['records']:,}",
        ]
        for run in runs
    ]
    return (
        INTRODUCTION.format(when=when(), load=os.getloadavg()[1], cores=os.cpu_count())
        + table(head, rows)
        + NOTES
    )


def draw(runs: Sequence[Figures], path: Path) -> None:
    """Cost of a round against the size of the fleet."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    for most in PARTICIPANTS:
        shown = [run for run in runs if run["participants"] == most and run["grid"] == next(iter(GRIDS))]
        axes.plot(
            [run["devices"] for run in shown],
            [run["round_cpu_s"] for run in shown],
            marker="o",
            label=f"{most:,} devices a round",
        )
    axes.set(
        xscale="log", yscale="log", xlabel="devices in the fleet", ylabel="CPU seconds of the driver a round"
    )
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


INTRODUCTION = """# A fleet of a million devices

Written by `make bench-population` ({when}). What the driver of a simulation spends on a round besides training:
choosing devices and planning their work (*planning*), their true costs and the order in which they finish (*clock*),
draining batteries and learning from reports (*step*). The scenario is `digits` with more devices; its data is cut into
100 parts that devices share. Medians over the rounds of one run, each run in a fresh process. CPU seconds leave out
what other work on the machine took away; the clock does not: the load was {load:.0f} on {cores} cores at the end.

![CPU seconds of a round against the size of the fleet](population.png)

"""

NOTES = """

*Start* draws the fleet and registers it; imports are not counted. What grows with the fleet are passes over arrays:
whether each device can be reached, its charge, its weight in selection. A device has a record, and is an object, once
it was considered for work.
"""


if __name__ == "__main__":
    main()
