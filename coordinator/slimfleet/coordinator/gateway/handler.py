"""Handler: the methods of the device API over an `Exchange`, whatever transport carries their messages."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from google.protobuf.message import DecodeError

from slimfleet.compression.device_api import (
    MAX_MESSAGE_BYTES,
    METHODS,
    PIECE_BYTES,
    PROBE_BYTES,
    CheckInResponse,
    DownloadModelResponse,
    Method,
    Plan,
    ProbeDownloadResponse,
    ProbeUploadResponse,
    ReportResponse,
    UploadUpdateResponse,
    Wait,
)
from slimfleet.coordinator.gateway.exchange import Exchange, Job
from slimfleet.coordinator.gateway.refusal import Refused
from slimfleet.coordinator.gateway.settings import GatewaySettings

__all__ = ["Handler", "Wire"]


class Wire(Protocol):
    """One call as a transport has it: messages in their encoded form."""

    async def read(self) -> bytes | None:
        """The next message; None at their end."""
        ...

    async def write(self, message: bytes) -> None:
        """Send a message, as fast as the other end takes it."""
        ...


class Handler:
    """Serves calls of devices. All its calls run on one event loop."""

    def __init__(self, exchange: Exchange, settings: GatewaySettings) -> None:
        self._exchange, self._settings = exchange, settings
        self._news: dict[int, asyncio.Event] = {}
        self._parked: dict[int, object] = {}
        """Node -> its last check-in: an earlier one that is still held, on a connection that was lost, is let go."""
        self._methods: dict[str, Callable[[int, _Call], Awaitable[None]]] = {
            "CheckIn": self._check_in,
            "DownloadModel": self._download_model,
            "UploadUpdate": self._upload_update,
            "Report": self._report,
            "ProbeDownload": _probe_download,
            "ProbeUpload": _probe_upload,
        }
        loop = asyncio.get_running_loop()
        exchange.wake = lambda node: _soon(loop, self._wake, node)

    async def serve(self, name: str, node: int, wire: Wire) -> None:
        """Serve one call of a device. Raises Refused."""
        await self._methods[name](node, _Call(METHODS[name], wire, self._settings.idle_s))

    async def _check_in(self, node: int, call: _Call) -> None:
        request = await call.one()
        self._exchange.check_in(node, request.registration_json, request.condition_json)
        await call.write(await self._next(node))

    async def _next(self, node: int) -> CheckInResponse:
        """The work of a device, held back until there is some, or for `hold_s`."""
        loop, settings = asyncio.get_running_loop(), self._settings
        until_s = loop.time() + settings.hold_s
        news = self._news.setdefault(node, asyncio.Event())
        mine = self._parked[node] = object()
        news.set()
        while True:
            news.clear()
            found = self._exchange.next(node)
            if isinstance(found, Job):
                return CheckInResponse(plan=_plan(found))
            if found:
                return CheckInResponse(wait=Wait(seconds=0.0, introduce=True))
            left_s = until_s - loop.time()
            if left_s <= 0 or self._parked[node] is not mine:
                return CheckInResponse(wait=Wait(seconds=settings.wait_s))
            try:
                await asyncio.wait_for(news.wait(), min(left_s, settings.away_s / 3))
            except TimeoutError:
                self._exchange.still_there(node)

    async def _download_model(self, node: int, call: _Call) -> None:
        request = await call.one()
        payload = self._exchange.job(node, request.plan_id).dispatch.payload
        if request.offset > len(payload):
            raise Refused("offset", f"the model has {len(payload)} bytes, not {request.offset}")
        view = memoryview(payload)
        for start in range(request.offset, len(payload), PIECE_BYTES):
            await call.write(DownloadModelResponse(data=bytes(view[start : start + PIECE_BYTES])))
            self._exchange.still_there(node)

    async def _upload_update(self, node: int, call: _Call) -> None:
        received, is_first = None, True
        while (request := await call.read()) is not None:
            if not request.data and not is_first:
                raise Refused("message", "a chunk without data: only the first may have none")
            is_first = False
            received = self._exchange.upload(
                node, request.plan_id, request.update_sha256, request.offset, request.data
            )
        if received is None:
            raise Refused("message", "an upload without a message")
        await call.write(UploadUpdateResponse(received_bytes=received))

    async def _report(self, node: int, call: _Call) -> None:
        request = await call.one()
        outcome = request.WhichOneof("outcome")
        if outcome == "done":
            repeated = self._exchange.done(node, request.plan_id, request.done)
        elif outcome == "refusal":
            repeated = self._exchange.refuse(node, request.plan_id, request.refusal)
        else:
            raise Refused("message", "a report without an outcome")
        await call.write(ReportResponse(repeated=repeated))

    def _wake(self, node: int) -> None:
        if node in self._news:
            self._news[node].set()


class _Call:
    """One call: its messages decoded, each in its time."""

    def __init__(self, method: Method, wire: Wire, idle_s: float) -> None:
        self._method, self._wire, self._idle_s = method, wire, idle_s

    async def one(self) -> Any:
        """The only message of a call."""
        message = await self.read()
        if message is None:
            raise Refused("message", f"{self._method.name} without a message")
        return message

    async def read(self) -> Any:
        """The next message; None at their end."""
        encoded = await self._in_time(self._wire.read())
        if encoded is None:
            return None
        if len(encoded) > MAX_MESSAGE_BYTES:
            raise Refused("size", f"a message of {len(encoded)} bytes: the limit is {MAX_MESSAGE_BYTES}")
        try:
            return self._method.request.FromString(encoded)
        except DecodeError as error:
            raise Refused("message", f"not a {self._method.request.DESCRIPTOR.name}") from error

    async def write(self, message: Any) -> None:
        """Send a message."""
        await self._in_time(self._wire.write(message.SerializeToString()))

    async def _in_time(self, step: Awaitable[Any]) -> Any:
        try:
            return await asyncio.wait_for(step, self._idle_s)
        except TimeoutError as error:
            raise Refused("slow", f"nothing moved for {self._idle_s:g} s") from error


async def _probe_download(node: int, call: _Call) -> None:
    size = (await call.one()).size_bytes
    if size > PROBE_BYTES:
        raise _too_much()
    noise = os.urandom(PIECE_BYTES)  # nothing on the way makes it shorter
    for start in range(0, size, PIECE_BYTES):
        await call.write(ProbeDownloadResponse(data=noise[: size - start]))


async def _probe_upload(node: int, call: _Call) -> None:
    received = 0
    while (request := await call.read()) is not None:
        received += len(request.data)
        if received > PROBE_BYTES:
            raise _too_much()
    await call.write(ProbeUploadResponse(received_bytes=received))


def _too_much() -> Refused:
    return Refused("size", f"a probe of more than {PROBE_BYTES} bytes")


def _plan(job: Job) -> Plan:
    return Plan(
        plan_id=job.dispatch.plan_id,
        assignment_json=job.assignment_json,
        model_bytes=len(job.dispatch.payload),
        model_sha256=job.model_sha256,
    )


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[int], None], node: int) -> None:
    """From any thread; a loop that has been closed has nobody to wake."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, node)
