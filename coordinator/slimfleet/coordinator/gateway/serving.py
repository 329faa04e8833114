"""Serving: a federation whose devices all come through the gateway, from the file that describes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from slimfleet.compression.edge.task_loader import BUILT_IN, existing_folders, load_task, make_importable
from slimfleet.coordinator.gateway.gateway import Gateway
from slimfleet.coordinator.gateway.opening import opened
from slimfleet.coordinator.gateway.settings import Served
from slimfleet.coordinator.observing.events import Observer
from slimfleet.coordinator.observing.rounds import RoundsCsv, log_rounds
from slimfleet.coordinator.transport.deployment import deployed_coordinator, held, metrics_on, publish
from slimfleet.coordinator.transport.driving import drive

__all__ = ["serve"]

METRICS_LINGER_S = 30.0
"""Longer than Prometheus' scrape interval, so that the end of a run does not look like its death."""


def serve(
    served: Served,
    observers: Sequence[Observer] = (),
    listening: Callable[[Gateway], None] = lambda gateway: None,
) -> None:
    """Run the rounds that are left, and write model and results.

    What `out/checkpoint` holds is taken up: a run that was interrupted or killed goes on. `listening` is called once
    devices can connect. Raises BadInput where something that the file names cannot be used, and SlimfleetError
    where no update was ever used.
    """
    gateway, beside = served.gateway, served.beside
    folders = [beside / each for each in served.task.import_from] or [beside]
    make_importable(existing_folders(folders))
    task = load_task(served.task.name, BUILT_IN, partitions=1, seed=0, options=served.task.options)
    out = beside / gateway.out
    coordinator = deployed_coordinator(task, served.settings)
    metrics = metrics_on(gateway.metrics_port, "127.0.0.1", METRICS_LINGER_S, served.settings.name)
    with held(out), metrics as measuring, opened(gateway, beside, measuring) as at_work:
        listening(at_work)
        drive(coordinator, at_work.link, out, [log_rounds, RoundsCsv(out), *measuring, *observers])
        publish(coordinator, out, served.text)
