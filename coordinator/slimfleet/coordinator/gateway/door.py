"""Door: the one address that devices reach. It bounds and counts connections, and passes them on unopened.

TLS ends behind it, in the servers; what it sees in clear is the greeting, by which it tells gRPC from HTTPS (ALPN, RFC
7301). A connection that makes no call of a known device in good time is closed: slow ones, half-open ones, strangers
and those whose certificate does not hold look alike from here, and are counted as `handshake`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Mapping

from slimfleet.compression import BadInput
from slimfleet.coordinator.gateway.hello import LONGEST_HELLO, NotTls, protocols_in
from slimfleet.coordinator.gateway.refusal import Refusals
from slimfleet.coordinator.gateway.settings import GatewaySettings

__all__ = ["Door"]

PIECE_BYTES = 65_536
LOOPBACK = "127.0.0.1"

log = logging.getLogger(__name__)


class Door:
    """Listens where `settings` say, and passes connections on to `ports` on loopback, by their ALPN name.

    Of several that a connection names it takes the first of `ports`; who names none of them goes to the port of "".
    """

    def __init__(self, settings: GatewaySettings, refusals: Refusals, ports: Mapping[str, int]) -> None:
        self._settings, self._refusals, self._ports = settings, refusals, ports
        self._open: Counter[str] = Counter()
        """Connections by network address."""
        self._greeted: dict[int, asyncio.Event] = {}
        """By the port from which the door calls the server behind it."""
        self._server: asyncio.Server | None = None
        self._passing: set[asyncio.Task[None]] = set()

    async def open(self) -> int:
        """Begin to listen; returns the port. Raises BadInput where the address cannot be listened on."""
        host, port = self._settings.host, self._settings.port
        try:
            self._server = await asyncio.start_server(self._come, host, port, limit=PIECE_BYTES)
        except OSError as error:
            raise BadInput(
                f"cannot listen on {host}:{port}: {error.strerror}; choose another gateway.host or gateway.port"
            ) from error
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    def greet(self, port: int) -> None:
        """A call of a known device has come over the connection that the door makes from this port."""
        if port in self._greeted:
            self._greeted[port].set()

    def shut(self) -> None:
        """Listen no more. Connections that are open stay so."""
        if self._server is not None:
            self._server.close()

    async def close(self) -> None:
        """End all connections, once it is shut."""
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)
        await asyncio.sleep(0)  # closed transports let go of their sockets

    def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._admit(reader, writer))
        self._passing.add(task)

        def end(task: asyncio.Task[None]) -> None:
            self._passing.discard(task)
            writer.transport.abort()
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("a connection could not be passed on", exc_info=error)

        task.add_done_callback(end)

    async def _admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        settings, address = self._settings, str(writer.get_extra_info("peername")[0])
        if self._open.total() >= settings.connections or (
            self._open[address] >= settings.connections_per_address
        ):
            self._refusals.count("connections")
            return
        self._open[address] += 1
        try:
            await self._pass_on(reader, writer)
        finally:
            self._open[address] -= 1
            self._open += Counter()  # those of none are forgotten

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            hello, names = await asyncio.wait_for(_hello(reader), self._settings.idle_s)
        except (TimeoutError, NotTls, OSError, asyncio.IncompleteReadError):
            self._refusals.count("handshake")
            return
        port = next((port for name, port in self._ports.items() if name in names), self._ports[""])
        try:
            behind_reader, behind = await asyncio.open_connection(LOOPBACK, port, limit=PIECE_BYTES)
        except OSError:  # the gateway closes
            self._refusals.count("connections")
            return
        mine: int = behind.get_extra_info("sockname")[1]
        greeted = self._greeted[mine] = asyncio.Event()
        behind.write(hello)
        ways = [
            asyncio.create_task(self._carry(reader, behind)),
            asyncio.create_task(self._carry(behind_reader, writer)),
        ]
        watch = asyncio.create_task(asyncio.wait_for(greeted.wait(), self._settings.idle_s))
        try:
            await asyncio.wait([*ways, watch], return_when=asyncio.FIRST_COMPLETED)
            if not greeted.is_set():
                self._refusals.count("handshake")
                return
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._greeted[mine]
            behind.transport.abort()  # first: the door may close while the rest is waited for
            for each in (*ways, watch):
                each.cancel()
            await asyncio.gather(*ways, watch, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until one end is closed, or the other has not read for too long."""
        with contextlib.suppress(OSError, TimeoutError):
            while data := await reader.read(PIECE_BYTES):
                writer.write(data)
                await asyncio.wait_for(writer.drain(), 2 * self._settings.idle_s)
            # What is on its way still arrives.
            writer.write_eof() if writer.can_write_eof() else None
            await asyncio.sleep(0.1)


async def _hello(reader: asyncio.StreamReader) -> tuple[bytes, list[str]]:
    """The first bytes of a connection up to the end of its greeting, and the protocols that it names."""
    hello = bytearray()
    while True:
        data = await reader.read(LONGEST_HELLO - len(hello))
        if not data:
            raise NotTls("it ends, or goes on for too long, before its greeting does")
        hello += data
        names = protocols_in(bytes(hello))
        if names is not None:
            return bytes(hello), names
