"""What the coordinator exports about a run. prometheus_client is optional, imported where used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slimfleet.compression.errors import BadInput
from slimfleet.coordinator.observing.prometheus.protocol import Metrics, NoMetrics

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from slimfleet.coordinator.observing.prometheus.serve import MetricsServer

__all__ = ["Metrics", "NoMetrics", "fleet_metrics", "serve_metrics"]


def fleet_metrics(registry: CollectorRegistry | None, federation: str = "default") -> Metrics:
    """Metrics that count in `registry`; for None, metrics that do nothing and need no prometheus_client."""
    if registry is None:
        return NoMetrics()
    from slimfleet.coordinator.observing.prometheus.exporter import FleetMetrics

    return FleetMetrics(registry, federation)


def serve_metrics(
    port: int, host: str = "127.0.0.1", federation: str = "default"
) -> tuple[Metrics, MetricsServer]:
    """Metrics in a registry of their own, and a server of `http://host:port/metrics` that the caller closes.

    Raises BadInput when prometheus_client is missing or the address cannot be listened on.
    """
    try:
        from prometheus_client import CollectorRegistry
    except ImportError as error:
        raise BadInput(
            "a metrics port needs prometheus-client: run `pip install 'slimfleet[coordinator]'`"
        ) from error
    from slimfleet.coordinator.observing.prometheus.serve import MetricsServer

    registry = CollectorRegistry()
    return fleet_metrics(registry, federation), MetricsServer(registry, port, host)
