"""The coordinator as a Flower ServerApp: the same rounds over our simulation, Flower's own, or a real SuperLink."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from slimfleet.coordinator.coordinator import Coordinator
from slimfleet.coordinator.learning.outcome import RoundRow
from slimfleet.coordinator.transport.flower.strategy import BudgetStrategy


def server_app(
    coordinator_of: Callable[[Context], Coordinator], after_round: Callable[[RoundRow], None] | None = None
) -> ServerApp:
    """A ServerApp that runs the rounds left of whichever coordinator `coordinator_of` makes for a Flower context.

    `after_round` is told of every round closed; it is the place for checkpoints and progress.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        BudgetStrategy(coordinator_of(context), after_round).start(grid)

    return app
