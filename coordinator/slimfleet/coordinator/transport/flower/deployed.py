"""Deployed coordinator: the ServerApp that an operator's Flower app names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from slimfleet.compression.edge.app_config import config_as, log_to_stderr, table, task_reference
from slimfleet.compression.edge.task_loader import BUILT_IN, load_task
from slimfleet.coordinator.observing.rounds import RoundsCsv, log_rounds
from slimfleet.coordinator.transport.deployment import deployed_coordinator, held, metrics_on, publish
from slimfleet.coordinator.transport.driving import drive
from slimfleet.coordinator.transport.flower.beside import joined, read_with_gateway
from slimfleet.coordinator.transport.flower.packing import OneByOne
from slimfleet.coordinator.transport.flower.patient import PatientGrid
from slimfleet.coordinator.transport.flower.run import FlowerLink


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """The table `server` of the run-config; dashes in its keys are underscores here."""

    settings: str
    """The file with the settings tree, beside the app or as an absolute path."""
    out: str
    """Folder of the checkpoints, the model and the report."""
    metrics_port: int = 0
    metrics_host: str = "127.0.0.1"
    metrics_linger_s: float = 0.0
    """Longer than Prometheus' scrape interval, so that the end of a run does not look like its death."""


def deployed_server_app(beside: Path) -> ServerApp:
    """A ServerApp that runs the federation of the run-config in wall-clock time.

    Where its settings have a table `gateway`, devices at that gateway take part beside the SuperNodes. It resumes from
    its checkpoint where there is one. At the end it writes `model.safetensors` and the results, as a simulation does;
    where no update was ever used, it fails and writes none. `beside` is the folder that relative paths start from.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        log_to_stderr("%(message)s")
        config = config_as(ServerConfig, table(context.run_config, "server"), "run-config server")
        out = Path(config.out)
        settings_path = beside / config.settings
        settings, gateway = read_with_gateway(settings_path)
        text = settings_path.read_text("utf-8")
        name, options = task_reference(context.run_config)
        task = load_task(name, BUILT_IN, partitions=1, seed=0, options=options)
        coordinator = deployed_coordinator(task, settings)
        metrics = metrics_on(config.metrics_port, config.metrics_host, config.metrics_linger_s, settings.name)
        nodes = FlowerLink(PatientGrid(grid), OneByOne(settings.round_timeout_s))
        beside_it = settings_path.parent
        with held(out), metrics as observers, joined(nodes, gateway, beside_it, observers) as link:
            drive(coordinator, link, out, [log_rounds, RoundsCsv(out), *observers])
            publish(coordinator, out, text)

    return app
