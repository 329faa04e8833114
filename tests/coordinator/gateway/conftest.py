"""A real gateway on loopback, certificates of its own authority, and devices that call it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from relay import Relay

from slimfleet.client.gateway.calling import Keys
from slimfleet.client.gateway.connection import Connection
from slimfleet.client.gateway.transports import TransportName, transport_to
from slimfleet.compression import Payload
from slimfleet.coordinator.gateway import Gateway, GatewaySettings
from slimfleet.coordinator.pki import PkiFolder
from slimfleet.coordinator.pki.identity import node_of
from slimfleet.coordinator.sending.dispatch import Dispatch

NAMES = ("pi-1", "pi-2", "pi-3", "pi-4")


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> PkiFolder:
    """An authority, a server on loopback, and four devices."""
    folder = PkiFolder(tmp_path_factory.mktemp("pki"))
    folder.init("test", 10)
    folder.add_server(["127.0.0.1", "localhost"], 10)
    for name in NAMES:
        folder.add_device(name, 10)
    return folder


@dataclass
class Hall:
    """A gateway at work, and what opens connections to it."""

    gateway: Gateway
    pki: PkiFolder
    stack: ExitStack
    transport: TransportName
    """Of devices for which a test names none."""

    def connection(
        self,
        name: str = "pi-1",
        pki: PkiFolder | None = None,
        port: int | None = None,
        transport: TransportName | None = None,
    ) -> Connection:
        """As a device with the keys of this name has it."""
        keys = (pki or self.pki).device(name)
        ca = self.pki.ca_crt  # a foreign device too knows whom it talks to
        files = Keys(ca, keys / "device.crt", keys / "device.key")
        made = Connection(
            transport_to(f"127.0.0.1:{port or self.gateway.port}", files, transport or self.transport)
        )
        self.stack.callback(made.close)
        return made

    def relay(self, pause_s: float = 0.0) -> Relay:
        relay = Relay(self.gateway.port, pause_s)
        self.stack.callback(relay.close)
        return relay

    def refused(self) -> dict[str, int]:
        return self.gateway.refusals.counts()


Open = Callable[..., Hall]


@pytest.fixture(params=["grpc", "https"])
def transport(request: pytest.FixtureRequest) -> TransportName:
    """A test that opens a gateway runs over both."""
    return request.param


@pytest.fixture
def opened(pki: PkiFolder, transport: TransportName) -> Iterator[Open]:
    """Open a gateway with these settings."""
    with ExitStack() as stack:

        def make(folder: PkiFolder = pki, **settings: float) -> Hall:
            chosen = {
                "port": 0,
                "hold_s": 0.2,
                "wait_s": 0.01,
                "idle_s": 5.0,
                "calls_per_s": 1_000.0,
                **settings,
            }
            gateway = stack.enter_context(Gateway(GatewaySettings(**chosen), folder))
            return Hall(gateway, folder, stack, transport)

        yield make


@pytest.fixture
def big_work(federate) -> Callable[..., Dispatch]:
    """Make work with a model of half a megabyte, whose update may be as large. Both are noise to a gateway."""
    planned = iter(federate().plan().dispatches)

    def make(name: str = "pi-1", size: int = 500_000) -> Dispatch:
        dispatch = next(planned)
        budget = replace(dispatch.assignment.budget, uplink_bytes=size)
        return replace(
            dispatch,
            node=node_of(name),
            assignment=replace(dispatch.assignment, budget=budget),
            payload=Payload(bytes(i * i % 251 for i in range(size))),
        )

    return make


@pytest.fixture
def keys_elsewhere(tmp_path: Path) -> PkiFolder:
    """Another authority that knows a device of the same name."""
    folder = PkiFolder(tmp_path / "elsewhere")
    folder.init("test", 10)
    folder.add_device("pi-1", 10)
    return folder
