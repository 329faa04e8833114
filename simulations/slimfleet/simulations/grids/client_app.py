"""A whole virtual fleet as one Flower ClientApp, for any engine: ours, Ray's, or Flower's own."""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context
from flwr.clientapp import ClientApp

from slimfleet.client.app import client_app
from slimfleet.client.device import Device
from slimfleet.simulations.faults import FaultyDevice
from slimfleet.simulations.settings import Scenario
from slimfleet.simulations.virtual_devices import VirtualDevices


def virtual_client_app(scenario: Scenario, state: Path) -> ClientApp:
    """A ClientApp that answers for any device of the fleet, by the `partition-id` of its node's config."""
    devices = VirtualDevices(scenario, state)

    def device_of(context: Context) -> Device | FaultyDevice:
        return devices.device(int(context.node_config["partition-id"]))

    return client_app(device_of)
