"""The server's side: a coordinator in wall-clock time that goes on from its checkpoint and publishes its model."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from slimfleet.compression.edge.app_config import config_as, table, task_reference
from slimfleet.coordinator import Coordinator, RoundRow, WallEnvironment
from slimfleet.coordinator.checkpoint import checkpoints, restore_checkpoint, save_checkpoint
from slimfleet.coordinator.edge import task_from
from slimfleet.coordinator.model_file import write_model
from slimfleet.coordinator.observing.prometheus import Metrics, NoMetrics, serve_metrics
from slimfleet.coordinator.settings_file import read_settings
from slimfleet.coordinator.transport.flower.app import server_app

HERE = Path(__file__).parent
app = ServerApp()
log = logging.getLogger("slimfleet")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """The table `server` of the run-config; dashes in its keys are underscores here."""

    settings: str
    out: str
    federation: str = "default"
    metrics_port: int = 0
    metrics_host: str = "127.0.0.1"
    metrics_linger_s: float = 0.0
    """Longer than Prometheus' scrape interval, lest the end of a run look like its death."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds that are left, each with a checkpoint, then write `model.safetensors`."""
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    config = config_as(ServerConfig, table(context.run_config, "server"), "run-config server")
    out, kept = Path(config.out), Path(config.out) / "checkpoint"
    with metrics_of(config) as metrics:
        task = task_from(*task_reference(context.run_config))
        coordinator = Coordinator(task, read_settings(HERE / config.settings), WallEnvironment(), metrics)
        if checkpoints(kept):
            restore_checkpoint(kept, coordinator)

        def after_round(row: RoundRow) -> None:
            save_checkpoint(kept, coordinator)
            log.info("%s", line_of(row, coordinator.settings.rounds))

        server_app(lambda _: coordinator, after_round)(grid, context)
        write_model(out / "model.safetensors", coordinator.published())
        log.info("%s is written", out / "model.safetensors")


def line_of(row: RoundRow, rounds: int) -> str:
    """A round in one line of the log."""
    accuracy = "not evaluated" if row.accuracy is None else f"accuracy {row.accuracy:.3f}"
    return (
        f"round {row.round} of {rounds}: {row.completed} of {row.selected} devices done, {accuracy}, "
        f"{row.uplink_bytes:,} bytes up, {row.downlink_bytes:,} down, {row.energy_j:.3g} J"
    )


@contextmanager
def metrics_of(config: ServerConfig) -> Iterator[Metrics]:
    """Metrics on their port while the run lasts and, where it ends well, a little longer; none for port 0."""
    if config.metrics_port == 0:
        yield NoMetrics()
        return
    metrics, server = serve_metrics(config.metrics_port, config.metrics_host, config.federation)
    with server:
        yield metrics
        time.sleep(config.metrics_linger_s)
