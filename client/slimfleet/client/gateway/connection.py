"""Connection: the device API over gRPC, as one device calls it.

Calls raise Away where the gateway cannot be reached or did not answer to the end, which passes, and Declined where it
answered that it does not serve the call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc

from slimfleet.compression import SlimfleetError
from slimfleet.compression.device_api import (
    MAX_MESSAGE_BYTES,
    METHODS,
    PIECE_BYTES,
    CheckInRequest,
    CheckInResponse,
    DownloadModelRequest,
    Plan,
    ReportRequest,
    UploadUpdateRequest,
)
from slimfleet.compression.files import naming
from slimfleet.compression.foreign_text import foreign_text

__all__ = ["Away", "Connection", "Declined"]

CHECK_IN_S = 900.0
"""Longest wait for an answer to a check-in, which the gateway may hold open."""

CALL_S = 60.0
SLOWEST_BYTES_PER_S = 500.0
"""A transfer may take `CALL_S` and its bytes at this rate."""

PASSING = {
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "CANCELLED",
    "UNKNOWN",
    "INTERNAL",
    "RESOURCE_EXHAUSTED",
    "ABORTED",
}


class Away(SlimfleetError):
    """The gateway cannot be reached, or did not answer to the end: try again later."""


class Declined(SlimfleetError):
    """The gateway does not serve the call; `status` is gRPC's word for why."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


class Connection:
    """A device's calls to `target` (host:port), with the authority's certificate, and its own with its key."""

    def __init__(self, target: str, ca: Path, certificate: Path, key: Path) -> None:
        """Raises DiskError where a file cannot be read. Connects with the first call."""
        self._target, self._files = target, (ca, key, certificate)
        self._credentials()
        self._channel: grpc.Channel | None = None

    def check_in(self, registration_json: str, condition_json: str) -> CheckInResponse:
        """Ask for work."""
        request = CheckInRequest(registration_json=registration_json, condition_json=condition_json)
        response: CheckInResponse = self._one("CheckIn", request, CHECK_IN_S)
        return response

    def download(self, plan: Plan, there: bytearray) -> None:
        """Add to `there` the bytes of the model of a plan that it lacks; what comes before a cut stays in it."""
        request = DownloadModelRequest(plan_id=plan.plan_id, offset=len(there))
        left = plan.model_bytes - len(there)
        with self._watched():
            for message in self._call("DownloadModel", request, _patience_s(left)):
                there += message.data

    def received(self, plan: Plan, sha256: bytes) -> int:
        """How many bytes of an update have come."""
        return self._upload(plan, sha256, b"", 0)

    def upload(self, plan: Plan, sha256: bytes, update: bytes, offset: int) -> int:
        """Send an update from an offset on; returns how many bytes have come."""
        return self._upload(plan, sha256, update, offset)

    def report(self, request: ReportRequest) -> None:
        """Report the end of a plan."""
        self._one("Report", request, CALL_S)

    def close(self) -> None:
        """Let the connection go; the next call connects anew."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _upload(self, plan: Plan, sha256: bytes, update: bytes, offset: int) -> int:
        def chunks() -> Iterator[UploadUpdateRequest]:
            for start in range(offset, max(len(update), offset + 1), PIECE_BYTES):
                yield UploadUpdateRequest(
                    plan_id=plan.plan_id,
                    offset=start,
                    data=update[start : start + PIECE_BYTES],
                    update_sha256=sha256,
                )

        with self._watched():
            (response,) = self._call("UploadUpdate", chunks(), _patience_s(len(update) - offset))
            return int(response.received_bytes)

    def _one(self, name: str, request: Any, patience_s: float) -> Any:
        with self._watched():
            (response,) = self._call(name, request, patience_s)
            return response

    def _call(self, name: str, request: Any, patience_s: float) -> Iterator[Any]:
        """Call a method; every call is a stream of messages, some of one."""
        method = METHODS[name]
        requests = request if method.takes_stream else iter((request,))
        stub = self._opened().stream_stream(
            method.path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=method.response.FromString,
        )
        answers: Iterator[Any] = stub(requests, timeout=patience_s)
        return answers

    def _opened(self) -> grpc.Channel:
        if self._channel is None:
            self._channel = grpc.secure_channel(self._target, self._credentials(), _OPTIONS)
        return self._channel

    def _credentials(self) -> grpc.ChannelCredentials:
        """Read anew for every connection: certificates are rotated."""
        content = []
        for path in self._files:
            with naming(path, "read"):
                content.append(path.read_bytes())
        return grpc.ssl_channel_credentials(*content)

    def _watched(self) -> _Watched:
        return _Watched(self.close)


class _Watched:
    """Turns errors of gRPC into ours, and lets a connection go that fails."""

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError):  # a stream of another number of messages than one
            raise Away("the gateway's answer has no message, or several") from error
        if not isinstance(error, grpc.RpcError):
            return
        status, said = error.code().name, foreign_text(error.details() or "")
        if status not in PASSING:
            raise Declined(status, said) from error
        if status != "RESOURCE_EXHAUSTED":
            self._close()
        raise Away(f"{status}: {said}") from error


_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
]
"""Probing only while a call is open: an idle phone stays asleep."""


def _patience_s(size_bytes: int) -> float:
    return CALL_S + max(size_bytes, 0) / SLOWEST_BYTES_PER_S
