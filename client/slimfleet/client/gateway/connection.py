"""Connection: the device API as one device calls it, over whatever transport.

Calls raise Away where the gateway cannot be reached or did not answer to the end, which passes, and Declined where it
answered that it does not serve the call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from slimfleet.client.gateway.calling import Away, Transport
from slimfleet.compression.device_api import (
    PIECE_BYTES,
    CheckInRequest,
    CheckInResponse,
    DownloadModelRequest,
    Plan,
    ProbeDownloadRequest,
    ProbeUploadRequest,
    ReportRequest,
    UploadUpdateRequest,
)

__all__ = ["Connection"]

CHECK_IN_S = 900.0
"""Longest wait for an answer to a check-in, which the gateway may hold open."""

CALL_S = 60.0
SLOWEST_BYTES_PER_S = 500.0
"""A transfer may take `CALL_S` and its bytes at this rate."""


class Connection:
    """A device's calls. Nothing is sent before the first."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def check_in(self, registration_json: str, condition_json: str) -> CheckInResponse:
        """Ask for work."""
        request = CheckInRequest(registration_json=registration_json, condition_json=condition_json)
        response: CheckInResponse = self._one("CheckIn", [request], CHECK_IN_S)
        return response

    def download(self, plan: Plan, there: bytearray) -> None:
        """Add to `there` the bytes of the model of a plan that it lacks; what comes before a cut stays in it."""
        request = DownloadModelRequest(plan_id=plan.plan_id, offset=len(there))
        left = plan.model_bytes - len(there)
        for message in self._transport.call("DownloadModel", [request], _patience_s(left)):
            there += message.data

    def received(self, plan: Plan, sha256: bytes) -> int:
        """How many bytes of an update have come."""
        return self.upload(plan, sha256, b"", 0)

    def upload(self, plan: Plan, sha256: bytes, update: bytes, offset: int) -> int:
        """Send an update from an offset on; returns how many bytes have come."""

        def chunks() -> Iterator[UploadUpdateRequest]:
            for start in range(offset, max(len(update), offset + 1), PIECE_BYTES):
                yield UploadUpdateRequest(
                    plan_id=plan.plan_id,
                    offset=start,
                    data=update[start : start + PIECE_BYTES],
                    update_sha256=sha256,
                )

        return int(self._one("UploadUpdate", chunks(), _patience_s(len(update) - offset)).received_bytes)

    def report(self, request: ReportRequest) -> None:
        """Report the end of a plan."""
        self._one("Report", [request], CALL_S)

    def probe_download(self, size_bytes: int) -> Iterator[bytes]:
        """Pieces of noise from the gateway, so many bytes; who has enough goes on to `close`."""
        request = ProbeDownloadRequest(size_bytes=size_bytes)
        for message in self._transport.call("ProbeDownload", [request], _patience_s(size_bytes)):
            yield message.data

    def probe_upload(self, noise: bytes) -> int:
        """Send noise to the gateway; returns how many bytes have come."""
        chunks = (
            ProbeUploadRequest(data=noise[start : start + PIECE_BYTES])
            for start in range(0, len(noise), PIECE_BYTES)
        )
        return int(self._one("ProbeUpload", chunks, _patience_s(len(noise))).received_bytes)

    def close(self) -> None:
        """Let the connection go; the next call connects anew."""
        self._transport.close()

    def _one(self, name: str, requests: Iterable[Any], patience_s: float) -> Any:
        responses = list(self._transport.call(name, requests, patience_s))
        if len(responses) != 1:
            self.close()
            raise Away(f"the gateway's answer to {name} has {len(responses)} messages in place of one")
        return responses[0]


def _patience_s(size_bytes: int) -> float:
    return CALL_S + max(size_bytes, 0) / SLOWEST_BYTES_PER_S
