"""The device's side: a process of its own answers each message, from what node-config, run-config and disk say."""

from slimfleet.client import deployed_client_app

app = deployed_client_app()
