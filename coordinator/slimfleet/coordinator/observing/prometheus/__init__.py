"""Prometheus: a run as metrics, and the server to scrape them from. prometheus_client is imported where it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slimfleet.compression.errors import BadInput

if TYPE_CHECKING:
    from slimfleet.coordinator.observing.prometheus.exporter import FleetMetrics
    from slimfleet.coordinator.observing.prometheus.serve import MetricsServer

__all__ = ["serve_metrics"]


def serve_metrics(
    port: int, host: str = "127.0.0.1", federation: str = "default"
) -> tuple[FleetMetrics, MetricsServer]:
    """An observer that counts in a registry of its own, and a server of `http://host:port/metrics`.

    The caller closes the server. Raises BadInput when prometheus_client is missing or the address is taken.
    """
    try:
        from prometheus_client import CollectorRegistry
    except ImportError as error:
        raise BadInput(
            "a metrics port needs prometheus-client: run `pip install 'slimfleet[coordinator]'`"
        ) from error
    from slimfleet.coordinator.observing.prometheus.exporter import FleetMetrics
    from slimfleet.coordinator.observing.prometheus.serve import MetricsServer

    registry = CollectorRegistry()
    return FleetMetrics(registry, federation), MetricsServer(registry, port, host)
