"""Deployment: what a coordinator of real devices does around its rounds, whatever link it has."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slimfleet.compression import SlimfleetError, Task
from slimfleet.compression.files import locked, naming
from slimfleet.coordinator.coordinator import Coordinator
from slimfleet.coordinator.environment import WallEnvironment
from slimfleet.coordinator.learning.row import why_nothing_was_used
from slimfleet.coordinator.observing.events import Observer
from slimfleet.coordinator.observing.prometheus import serve_metrics
from slimfleet.coordinator.reporting import record_of, write_outputs
from slimfleet.coordinator.reporting.outputs import BEST_MODEL, LAST_MODEL
from slimfleet.coordinator.reporting.words import best_of, own_budgets
from slimfleet.coordinator.settings import CoordinatorSettings

__all__ = ["deployed_coordinator", "held", "metrics_on", "publish"]

log = logging.getLogger("slimfleet")


def deployed_coordinator(task: Task, settings: CoordinatorSettings) -> Coordinator:
    """A coordinator in wall-clock time."""
    if own := own_budgets(settings.budget):
        log.info("%s", own)
    return Coordinator(task, settings, WallEnvironment(max_age_s=settings.selection.condition_max_age_s))


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Make the folder `out` where it is missing, and hold it for this process alone."""
    with naming(out):
        out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        yield


def publish(coordinator: Coordinator, out: Path, settings_toml: str) -> None:
    """Write model and results; where no update was ever used, the results alone. Then it raises SlimfleetError."""
    nothing = why_nothing_was_used(coordinator.state)
    model = coordinator.published() if nothing is None else None
    record = record_of(coordinator, coordinator.settings.name, "deployed")
    summary = write_outputs(out, record, None, settings_toml, model, coordinator.state.best_model)
    if nothing is not None:
        raise SlimfleetError(f"{nothing}; no model is published, the other results are in {out}")
    log.info("%s and %s are written", out / LAST_MODEL, out / "report.html")
    if record.best is not None:
        log.info("%s is the best model, %s", out / BEST_MODEL, best_of(summary))


@contextmanager
def metrics_on(port: int, host: str, linger_s: float, federation: str) -> Iterator[list[Observer]]:
    """Metrics on their port while a run lasts and, where it ends well, a little longer; none for port 0."""
    if port == 0:
        yield []
        return
    metrics, server = serve_metrics(port, host, federation)
    with server:
        yield [metrics]
        time.sleep(linger_s)
