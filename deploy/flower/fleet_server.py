"""Server side: it runs what the run-config and `federation.toml`, both beside this file, describe."""

from pathlib import Path

from slimfleet.coordinator.transport.flower import deployed_server_app

app = deployed_server_app(beside=Path(__file__).parent)
