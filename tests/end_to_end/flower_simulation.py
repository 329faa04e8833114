"""Run our ServerApp and ClientApp under Flower's own simulation engine: `flower_simulation.py OUT.json STATE`.

Flower's engine starts a Ray of its own and ends it, so it gets a process of its own.
"""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from slimfleet.coordinator import Coordinator, WallEnvironment
from slimfleet.coordinator.transport.flower import run
from slimfleet.simulations import load_scenario
from slimfleet.simulations.grids.flower import fleet_app
from slimfleet.simulations.scenario import build_task_of

OPTIONS = {
    "rounds": "2",
    "fleet.devices": "6",
    "selection.per_round": "4",
    "fleet.dropout": "0.0",
    "planner.local_steps": "[2, 4]",
}


def main(out: Path, state: Path) -> None:
    """Two rounds over six of Flower's virtual nodes."""
    scenario = load_scenario("digits", OPTIONS)
    # What Flower's engine knows of our environment is the wall clock: every node of its own can be reached.
    settings = scenario.coordinator
    patient = replace(settings, selection=replace(settings.selection, min_devices=scenario.fleet.devices))
    coordinator = Coordinator(build_task_of(scenario), patient, WallEnvironment())
    app = LateApp(partial(fleet_app, scenario, state))
    server = ServerApp()

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        run(coordinator, grid, None)

    run_simulation(
        server_app=server,
        client_app=app,  # type: ignore[arg-type]
        num_supernodes=scenario.fleet.devices,
        backend_config={"client_resources": {"num_cpus": 1}, "init_args": {"num_cpus": 1}},
    )
    state = coordinator.state
    rows = [{"completed": row.completed, "accuracy": row.accuracy} for row in state.rows]
    out.write_text(
        json.dumps({"rows": rows, "rejected": state.totals.rejected, "failed": state.totals.failed})
    )


class LateApp:
    """A ClientApp made where it runs: Flower pickles the app, and a fleet need not travel."""

    def __init__(self, make_app: partial[ClientApp]) -> None:
        self._make_app = make_app
        self._app: ClientApp | None = None

    def __call__(self, message, context: Context):  # type: ignore[no-untyped-def]
        """Answer one message."""
        if self._app is None:
            self._app = self._make_app()
        return self._app(message, context)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
