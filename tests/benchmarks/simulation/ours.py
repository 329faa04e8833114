"""slimfleet: `ours.py ENGINE[+PRESET] MODEL BACKEND ROUNDS COHORTS FOLDER DEVICES`; with a preset of the codec also
energy, budgets and the codec.

It plays rounds of its own. The first time it writes down in COHORTS who took part, and in which order devices took
their images, for its peers to do the same.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from work import COHORT, DEVICES, EXAMPLES, Cohorts, finish

from slimfleet.coordinator import Closed, Planned
from slimfleet.simulations import load_scenario, simulate

PLAIN = {
    "planner.policy": "fixed",
    "budget": "{energy_j = 'none'}",
    "codec.feedback": "false",
    "codec.downlink_bits": "32",
}
"""Plain federated averaging in float32."""
OURS = {
    "planner.nmse": "[0.1]",
    "planner.local_steps": "[3]",
    "budget": "{energy_j = 1000.0, deadline_s = 3600.0, uplink_bytes = 200_000}",
}
"""Budgets, the codec both ways, and error feedback."""


def scenario(rounds: int, model: str, engine: str, more: dict[str, str], devices: int = DEVICES):
    here = str(Path(__file__).parent)
    return load_scenario(
        "digits",
        {
            "name": "simulated-work",
            "rounds": str(rounds),
            "evaluate_every": "1000000",
            "task.name": "work_task:Work",
            "task.import_from": json.dumps([here]),
            "task.options": f"{{model = '{model}'}}",
            "task.partitions": str(DEVICES),
            "fleet.devices": str(devices),
            "fleet.availability": "1.0",
            "fleet.dropout": "0.0",
            "selection.per_round": str(COHORT),
            "selection.policy": "uniform",
            "selection.battery_floor": "0.0",
            "planner.batch_sizes": "[20]",
            "planner.widths": "[1.0]",
            "planner.max_epochs": "1.0",
            "client.momentum": "0.0",
            "server.momentum": "0.0",
            "server.averaging": "0.0",
            "server.fleet_bounds": "false",
            "run.engine": engine,
            "run.workers": "2",
            **more,
        },
    )


def main(
    engine: str, model: str, backend: str, rounds: int, cohorts: Path, folder: Path, devices: int
) -> None:
    torch.set_num_threads(1)
    ends_s, planned = [], []
    name = f"slimfleet-{engine}-{backend}"

    def note(event: object) -> None:
        if isinstance(event, Closed):
            ends_s.append(time.perf_counter())
        if isinstance(event, Planned) and event.dispatches:
            planned.append(sorted((each.node, each.plan_id) for each in event.dispatches))

    trainer, _, preset = engine.partition("+")
    more = OURS | {"codec.preset": preset} if preset else PLAIN
    played = scenario(rounds, model, trainer, more, devices)
    out = folder / name / model
    simulate(played, out, backend=backend, observers=[note])
    if not cohorts.exists():
        orders = [
            [np.random.default_rng((0, plan_id, 0)).permutation(EXAMPLES) for _, plan_id in each]
            for each in planned
        ]
        Cohorts(np.array([[node - 1 for node, _ in each] for each in planned]), np.array(orders)).save(
            cohorts
        )
    finish(name, model, ends_s, load_file(out / "model.safetensors"), folder)


if __name__ == "__main__":
    engine, model, backend, rounds, cohorts, folder, devices = sys.argv[1:]
    main(engine, model, backend, int(rounds), Path(cohorts), Path(folder), int(devices))
