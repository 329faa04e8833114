"""The device's side: a process of its own answers each message, from what node-config, run-config and disk say."""

from flwr.app import Context

from slimfleet.client.app import client_app
from slimfleet.client.deployed import deployed_device
from slimfleet.client.device import Device
from slimfleet.compression.edge.app_config import task_reference


def device_of(context: Context) -> Device:
    """The device that this SuperNode stands for. Raises BadInput, which reaches the log of the server too."""
    name, arguments = task_reference(context.run_config)
    return deployed_device(context.node_config, name, arguments)


app = client_app(device_of)
