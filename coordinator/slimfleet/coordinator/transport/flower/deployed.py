"""Deployed coordinator: the ServerApp that an operator's Flower app names."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from slimfleet.compression import SlimfleetError
from slimfleet.compression.edge.app_config import config_as, log_to_stderr, table, task_reference
from slimfleet.compression.edge.task_loader import BUILT_IN, load_task
from slimfleet.compression.files import locked, naming
from slimfleet.coordinator.coordinator import Coordinator
from slimfleet.coordinator.environment import WallEnvironment
from slimfleet.coordinator.learning.row import why_nothing_was_used
from slimfleet.coordinator.observing.events import Observer
from slimfleet.coordinator.observing.prometheus import serve_metrics
from slimfleet.coordinator.observing.rounds import RoundsCsv, log_rounds
from slimfleet.coordinator.reporting import record_of, write_outputs
from slimfleet.coordinator.reporting.outputs import BEST_MODEL, LAST_MODEL
from slimfleet.coordinator.reporting.words import best_of, own_budgets
from slimfleet.coordinator.settings import read_settings
from slimfleet.coordinator.transport.flower.link import PatientLink
from slimfleet.coordinator.transport.flower.run import run

log = logging.getLogger("slimfleet")


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

    It resumes from its checkpoint where there is one. At the end it writes `model.safetensors` and the results, as a
    simulation does; where no update was ever used, it fails and writes none. `beside` is the folder that relative paths
    of settings start from.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        log_to_stderr("%(message)s")
        config = config_as(ServerConfig, table(context.run_config, "server"), "run-config server")
        out = Path(config.out)
        settings_path = beside / config.settings
        settings, settings_toml = read_settings(settings_path), settings_path.read_text("utf-8")
        if own := own_budgets(settings.budget):
            log.info("%s", own)
        name, options = task_reference(context.run_config)
        task = load_task(name, BUILT_IN, partitions=1, seed=0, options=options)
        coordinator = Coordinator(
            task, settings, WallEnvironment(max_age_s=settings.selection.condition_max_age_s)
        )
        with naming(out):
            out.mkdir(parents=True, exist_ok=True)
        with locked(out), _metrics(config, settings.name) as metrics:
            run(coordinator, PatientLink(grid), out, [log_rounds, RoundsCsv(out), *metrics])
            nothing = why_nothing_was_used(coordinator.state)
            model = coordinator.published() if nothing is None else None
            record = record_of(coordinator, settings.name, "deployed")
            summary = write_outputs(out, record, None, settings_toml, model, coordinator.state.best_model)
            if nothing is not None:
                raise SlimfleetError(f"{nothing}; no model is published, the other results are in {out}")
            log.info("%s and %s are written", out / LAST_MODEL, out / "report.html")
            if record.best is not None:
                log.info("%s is the best model, %s", out / BEST_MODEL, best_of(summary))

    return app


@contextmanager
def _metrics(config: ServerConfig, federation: str) -> Iterator[list[Observer]]:
    """Metrics on their port while the run lasts and, where it ends well, a little longer; none for port 0."""
    if config.metrics_port == 0:
        yield []
        return
    metrics, server = serve_metrics(config.metrics_port, config.metrics_host, federation)
    with server:
        yield [metrics]
        time.sleep(config.metrics_linger_s)
