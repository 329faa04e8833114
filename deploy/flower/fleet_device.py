"""Device side: each message is answered by a new process, from node-config, run-config and disk."""

from slimfleet.client import deployed_client_app

app = deployed_client_app()
