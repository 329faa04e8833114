"""HTTPS: the device API as HTTP/1.1 with mutual TLS, for networks that let no gRPC through.

A call is a POST to the path of its method. The bodies hold messages as gRPC frames them: a byte 0, the length in four
bytes, the message. docs/device-api.md says it to those who write a client.
"""

from __future__ import annotations

import asyncio
import logging
import ssl

from slimfleet.coordinator.gateway.https_session import READ_BYTES, Session
from slimfleet.coordinator.gateway.reception import Reception
from slimfleet.coordinator.gateway.settings import GatewaySettings
from slimfleet.coordinator.pki import PkiFolder

__all__ = ["HttpsServer"]

log = logging.getLogger(__name__)


class HttpsServer:
    """Serves behind the door, on a port of loopback."""

    def __init__(self, reception: Reception, pki: PkiFolder, settings: GatewaySettings) -> None:
        self._reception, self._settings, self._context = reception, settings, _tls(pki)
        self._server: asyncio.Server | None = None
        self._sessions: dict[asyncio.Task[None], Session] = {}

    async def start(self) -> int:
        """Begin to serve; returns the port."""
        self._server = await asyncio.start_server(
            self._come,
            "127.0.0.1",
            0,
            limit=READ_BYTES,
            ssl=self._context,
            ssl_handshake_timeout=self._settings.idle_s,
            ssl_shutdown_timeout=1.0,
        )
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self, grace_s: float) -> None:
        """Serve no new call; those that are open have `grace_s` to end."""
        if self._server is not None:
            self._server.close()
        in_call = [task for task, session in self._sessions.items() if session.is_in_call]
        if in_call:
            await asyncio.wait(in_call, timeout=grace_s)
        ending = list(self._sessions)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session(reader, writer, self._reception, self._settings.idle_s)
        task = asyncio.create_task(session.serve())
        self._sessions[task] = session

        def end(task: asyncio.Task[None]) -> None:
            del self._sessions[task]
            writer.transport.abort() if task.cancelled() else writer.close()
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("a connection ended with an error", exc_info=error)

        task.add_done_callback(end)


def _tls(pki: PkiFolder) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(pki.server_crt, pki.server_key)
    context.load_verify_locations(pki.ca_crt)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["http/1.1"])
    return context
