"""Gateway: devices that call the coordinator themselves, over gRPC or HTTPS, known by their certificates."""

from slimfleet.coordinator.gateway.gateway import Gateway
from slimfleet.coordinator.gateway.opening import opened
from slimfleet.coordinator.gateway.serving import serve
from slimfleet.coordinator.gateway.settings import GatewaySettings, Served, ServedTask, read_served

__all__ = ["Gateway", "GatewaySettings", "Served", "ServedTask", "opened", "read_served", "serve"]
