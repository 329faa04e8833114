"""Session: one connection of HTTPS, and the calls that come over it one after another."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from types import MappingProxyType

import h11

from slimfleet.compression.device_api import MAX_MESSAGE_BYTES, METHODS
from slimfleet.compression.device_api.framing import CONTENT_TYPE, STATUS_HEADER, Frames, Unframed, framed
from slimfleet.coordinator.gateway.reception import Reception
from slimfleet.coordinator.gateway.refusal import Refused

__all__ = ["READ_BYTES", "Session"]

READ_BYTES = 65_536
LONGEST_HEAD = 8_192
"""Bytes of the first line and the headers of a request, or of a line in a body of chunks."""

DRAINED_BYTES = 262_144
"""What is read of a body that nobody wants, so that its sender comes to read why. What has more is cut off."""

FREE_CHUNKS, LEAST_CHUNK_BYTES = 1_000, 64
"""A body may have so many chunks of any length, and others of so many bytes on average: each costs time."""

PAUSE_S = 0.25
"""Who calls too often is answered after this time, and read no further until then."""

MOMENT_S = 0.1
"""A request that is refused has so long to come to its end; a connection on which it does not is closed."""

KEPT_IDLES = 2
"""A connection without a call is kept for so many times `idle_s`."""

HTTP: Mapping[str, int] = MappingProxyType(
    {
        "INVALID_ARGUMENT": 400,
        "FAILED_PRECONDITION": 400,
        "UNAUTHENTICATED": 401,
        "PERMISSION_DENIED": 403,
        "NOT_FOUND": 404,
        "RESOURCE_EXHAUSTED": 429,
        "INTERNAL": 500,
        "UNIMPLEMENTED": 501,
        "UNAVAILABLE": 503,
        "DEADLINE_EXCEEDED": 504,
    }
)
"""Status of gRPC -> status of HTTP, as google/rpc/code.proto pairs them."""

BEGINS = h11.Response(status_code=200, headers=[("content-type", CONTENT_TYPE)])
PATHS = {method.path: name for name, method in METHODS.items()}


class Session:
    """Serves the calls of one connection until it ends. `idle_s`: a request that does not move for so long is ended."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reception: Reception, idle_s: float
    ) -> None:
        self._reception, self._idle_s = reception, idle_s
        self._stream = _Stream(reader, writer)
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        self._certificate = tls.getpeercert(binary_form=True)
        self._caller: int = writer.get_extra_info("peername")[1]
        self.is_in_call = False

    async def serve(self) -> None:
        """Serve one call after another."""
        try:
            while (head := await self._head()) is not None:
                self.is_in_call = True
                if not await self._answer(head):
                    return
                self.is_in_call = False
        except (OSError, h11.ProtocolError):
            return  # lost, or silent for too long; a connection without a known device is counted at the door

    async def _head(self) -> h11.Request | Refused | None:
        """The next request, or what is wrong with it; None where the other end has no more."""
        async with asyncio.timeout(KEPT_IDLES * self._idle_s):
            if not await self._stream.begins():
                return None
        try:
            async with asyncio.timeout(self._idle_s):
                event = await self._stream.next()
        except h11.RemoteProtocolError as error:
            return Refused("message", f"not HTTP: {error}")
        return event if isinstance(event, h11.Request) else None

    async def _answer(self, head: h11.Request | Refused) -> bool:
        """Serve a call; whether another may follow on this connection."""
        wire = _Wire(self._stream)
        try:
            if isinstance(head, Refused):
                raise self._reception.refuse(self._certificate, self._caller, head)
            name = _method_of(head)
            await self._reception.serve(name, self._certificate, self._caller, wire)
            await self._stream.send(h11.EndOfMessage())
        except Refused as refused:
            if refused.reason == "rate":
                await asyncio.sleep(PAUSE_S)
            if wire.has_begun:
                return False  # half an answer, which the other end knows by its missing end
            is_kept = refused.reason != "slow" and await self._stream.is_over(MOMENT_S)
            await self._stream.send(*_refusal(refused, is_kept))
            if refused.reason == "slow":
                return False
        return await self._stream.is_over(self._idle_s) and self._stream.is_kept()


class _Stream:
    """HTTP over a connection: bytes become events of h11, and events bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=LONGEST_HEAD)
        self._chunks = self._body_bytes = 0
        """Of the request that comes in."""

    async def begins(self) -> bool:
        """Wait for the first bytes of a request; whether there are any."""
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
            self._chunks = self._body_bytes = 0
        if not self._http.trailing_data[0]:
            self._http.receive_data(await self._reader.read(READ_BYTES))
        return bool(self._http.trailing_data[0])

    async def next(self) -> object:
        """The next event of h11. Raises ConnectionResetError where the connection ends before it, and
        RemoteProtocolError where it is no HTTP, or is made to cost time."""
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                await self.send(h11.InformationalResponse(status_code=100, headers=[]))
            data = await self._reader.read(READ_BYTES)
            if not data:
                raise ConnectionResetError("the connection ended in the middle of a request")
            self._http.receive_data(data)
        if isinstance(event, h11.Data):
            self._chunks += event.chunk_start
            self._body_bytes += len(event.data)
            if self._chunks > FREE_CHUNKS + self._body_bytes / LEAST_CHUNK_BYTES:
                raise h11.RemoteProtocolError("a body in chunks of a few bytes")
        return event

    async def send(self, *events: h11.Event) -> None:
        """Send events, as fast as the other end takes them."""
        self._writer.write(b"".join(self._http.send(each) or b"" for each in events))
        await self._writer.drain()

    async def is_over(self, seconds: float) -> bool:
        """Whether the request comes to its end within this time, and is short; what comes of it is dropped."""
        left = DRAINED_BYTES
        try:
            async with asyncio.timeout(seconds):
                while self._http.their_state is h11.SEND_BODY and left > 0:
                    if self._http.they_are_waiting_for_100_continue:
                        return False
                    event = await self.next()
                    left -= max(len(event.data), LEAST_CHUNK_BYTES) if isinstance(event, h11.Data) else 0
        except (TimeoutError, h11.RemoteProtocolError):
            return False
        return self._http.their_state is h11.DONE

    def is_kept(self) -> bool:
        """Whether both ends have said all, and may begin anew."""
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE


class _Wire:
    """A call of HTTPS: messages in the bodies of request and response."""

    def __init__(self, stream: _Stream) -> None:
        self._stream, self._frames = stream, Frames(MAX_MESSAGE_BYTES)
        self.has_begun = False
        """Whether a part of the answer has been sent."""

    async def read(self) -> bytes | None:
        try:
            while (message := self._frames.next()) is None:
                event = await self._stream.next()
                if not isinstance(event, h11.Data):
                    self._frames.end()
                    return None
                self._frames.add(event.data)
        except Unframed as error:
            raise Refused("size" if error.is_too_long else "message", str(error)) from error
        except h11.RemoteProtocolError as error:
            raise Refused("message", f"not acceptable HTTP: {error}") from error
        return message

    async def write(self, message: bytes) -> None:
        begins = [] if self.has_begun else [BEGINS]
        self.has_begun = True
        await self._stream.send(*begins, h11.Data(data=framed(message)))


def _method_of(head: h11.Request) -> str:
    """The name of the method that is called; where there is none, what the request names."""
    path = head.target.decode("ascii", "replace")
    return PATHS.get(path, path) if head.method == b"POST" else f"{head.method.decode()} {path}"


def _refusal(refused: Refused, is_kept: bool) -> tuple[h11.Event, ...]:
    text = f"{refused.reason}: {refused}".encode()
    headers = [
        (STATUS_HEADER, refused.status),
        ("content-type", "text/plain; charset=utf-8"),
        ("content-length", str(len(text))),
    ]
    if not is_kept:
        headers.append(("connection", "close"))
    response = h11.Response(status_code=HTTP[refused.status], headers=headers)
    return response, h11.Data(data=text), h11.EndOfMessage()
