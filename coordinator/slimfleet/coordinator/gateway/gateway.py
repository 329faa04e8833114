"""Gateway at work: an event loop in a thread of its own, so that the coordinator's thread may compute."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType

from slimfleet.coordinator.gateway.admission import Admission
from slimfleet.coordinator.gateway.door import Door
from slimfleet.coordinator.gateway.exchange import Exchange
from slimfleet.coordinator.gateway.grpc_server import start_grpc
from slimfleet.coordinator.gateway.handler import Handler
from slimfleet.coordinator.gateway.https_server import HttpsServer
from slimfleet.coordinator.gateway.reception import Reception
from slimfleet.coordinator.gateway.refusal import Refusals
from slimfleet.coordinator.gateway.settings import GatewaySettings
from slimfleet.coordinator.pki import PkiFolder, Revocations

__all__ = ["Gateway"]

GRACE_S = 1.0
"""Calls that are open when a gateway closes have so long to end."""


class Gateway:
    """Serves devices in a `with` block; `link` is what the coordinator drives them by.

    `port` is the port that it listens on, and `refusals` counts what it did not serve.
    """

    def __init__(self, settings: GatewaySettings, pki: PkiFolder) -> None:
        """Raises BadInput where `pki` lacks something."""
        self._settings, self._pki = settings, pki
        self.link = Exchange(settings.away_s)
        self.refusals = Refusals()
        self.port = 0
        revocations = Revocations(pki.revoked, pki.authority_certificate())
        self._admission = Admission(revocations, settings.calls_per_s)
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)

    def __enter__(self) -> Gateway:
        """Raises BadInput where the address cannot be listened on."""
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and self._closing is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that started this one
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        ports: dict[str, int] = {}
        door = Door(self._settings, self.refusals, ports)
        handler = Handler(self.link, self._settings)
        reception = Reception(handler, self._admission, self.refusals, door.greet)
        https = HttpsServer(reception, self._pki, self._settings)
        # Who speaks HTTP/1.1 too, as curl does, is no gRPC client: these name h2 alone.
        ports["http/1.1"] = ports[""] = await https.start()
        grpc, ports["h2"] = await start_grpc(reception, self._pki, self._settings)
        self.port = await door.open()
        self._ready.set()
        await self._closing.wait()
        # First the door: who comes in the meantime would find nobody behind it.
        door.shut()
        await asyncio.gather(grpc.stop(GRACE_S), https.stop(GRACE_S))
        await door.close()
