"""Flower as the transport: the only part of the coordinator that imports flwr."""

from slimfleet.coordinator.transport.flower.deployed import deployed_server_app
from slimfleet.coordinator.transport.flower.run import run

__all__ = ["deployed_server_app", "run"]
