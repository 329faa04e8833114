"""The server's side: run-config and `federation.toml`, both beside this file, say what it runs."""

from pathlib import Path

from slimfleet.coordinator.transport.flower import deployed_server_app

app = deployed_server_app(beside=Path(__file__).parent)
