"""The driver's time and memory for fleets of a thousand to ten million devices: selection, planning, clock, batteries.

    python tests/benchmarks/population.py docs/results

writes `population.md` and `population.png` there; some minutes on one core. Each fleet is measured in a process of its
own. Devices do not train: each reports what its true figures say that the round cost it.
"""

from __future__ import annotations

import heapq
import resource
import time
from statistics import median

SIZES = (1_000, 10_000, 100_000, 1_000_000)
LARGEST = 10_000_000
ROUNDS = 6
"""Measured rounds; one more before them is not counted."""
PARTICIPANTS = (100, 1_000)
GRIDS = {
    "120 candidates": {},
    "2,880 candidates": {"planner.batch_sizes": "[32, 16, 8]", "planner.nmse": "NMSE"},
}
"""The planner's grid of the scenario `digits`, and that of the defaults."""


def measured(devices: int, participants: int, grid: str, rounds: int) -> dict[str, float]:
    """One fleet in this process: start-up, the parts of a round in CPU seconds and by the clock, and memory."""
    from slimfleet.coordinator import Answer, Coordinator
    from slimfleet.coordinator.settings import NMSE
    from slimfleet.simulations import load_scenario
    from slimfleet.simulations.ledger import SimulatedLedger
    from slimfleet.simulations.population import build_fleet, enrol
    from slimfleet.simulations.scenario import build_task_of
    from slimfleet.simulations.world import VirtualWorld, node_of

    changes = {key: str(list(NMSE)) if value == "NMSE" else value for key, value in GRIDS[grid].items()}
    scenario = load_scenario(
        "digits",
        {
            "rounds": "1000",
            "evaluate_every": "1000",
            "fleet.devices": str(devices),
            "task.partitions": "100",
            "selection.per_round": str(participants),
        }
        | changes,
    )
    task = build_task_of(scenario)
    before = time.process_time(), time.perf_counter()
    fleet = build_fleet(scenario.fleet, scenario.coordinator.seed)
    world = VirtualWorld(fleet)
    coordinator = Coordinator(task, scenario.coordinator, world)
    enrol(coordinator.state.registry, fleet, task)
    found = {"start_cpu_s": time.process_time() - before[0], "start_s": time.perf_counter() - before[1]}
    nodes = range(node_of(0), node_of(devices))
    laps: list[list[float]] = []
    chosen = 0
    for _ in range(rounds + 1):
        marks = [(time.process_time(), time.perf_counter())]
        planned = coordinator.plan(world.now_s(), coordinator.wanted(), nodes)
        marks.append((time.process_time(), time.perf_counter()))
        arriving = []
        for dispatch in planned.dispatches:
            report = reported(fleet, dispatch, SimulatedLedger)
            took_s = None if report is None else report.spent.time_s
            heapq.heappush(arriving, (world.arrival_s(dispatch, took_s), dispatch.node, dispatch, report))
        opened = coordinator.state.open_round
        assert opened is not None
        while arriving:
            moment_s, _, dispatch, report = heapq.heappop(arriving)
            world.reach(moment_s, more_may_come=False)
            del coordinator.state.in_flight[dispatch.plan_id]
            verdict = "failed" if report is None else "accepted"
            reason = "dropout" if report is None else ""
            opened.answers.append(Answer(dispatch=dispatch, verdict=verdict, reason=reason, report=report))
        marks.append((time.process_time(), time.perf_counter()))
        coordinator.step()
        marks.append((time.process_time(), time.perf_counter()))
        chosen = len(planned.dispatches)
        laps.append([b[clock] - a[clock] for clock in (0, 1) for a, b in zip(marks, marks[1:], strict=False)])
    parts = [median(lap[i] for lap in laps[1:]) for i in range(6)]
    names = ("plan_cpu_s", "clock_cpu_s", "step_cpu_s", "plan_s", "clock_s", "step_s")
    found |= dict(zip(names, parts, strict=True))
    found |= {
        "cpu_s": median(sum(lap[:3]) for lap in laps[1:]),
        "wall_s": median(sum(lap[3:]) for lap in laps[1:]),
    }
    found |= {"chosen": chosen, "records": len(list(coordinator.state.registry))}
    return found | {"peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}


def reported(fleet, dispatch, ledger_of):
    """What a device says that its round cost; None where it vanishes."""
    from slimfleet.compression import Report
    from slimfleet.compression.cost import Demand  # noqa: F401 - loads the cost model before the clock runs
    from slimfleet.compression.types import USUAL_STARTUP
    from slimfleet.simulations.world import FIRST_NODE

    device, plan = fleet[dispatch.node - FIRST_NODE], dispatch.assignment.plan
    now = device.conditions(dispatch.version)
    if now.drops_out_at is not None:
        return None
    ledger = ledger_of(now.applied(device.profile), dispatch.limits.power_w, USUAL_STARTUP.time_s)
    ledger.download(len(dispatch.payload))
    ledger.train(2e5 * plan.local_steps * plan.batch_size)
    ledger.upload(dispatch.predicted.uplink_bytes)
    balance, source = ledger.close()
    from dataclasses import replace

    spent = replace(
        dispatch.predicted, energy_j=balance.energy_j, radio_j=balance.radio_j, time_s=balance.time_s
    )
    return Report(spent=spent, source=source, loss=1.0, examples=20, steps=plan.local_steps)
