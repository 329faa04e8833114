"""Refusals of a gateway: a bounded set of words, each with the status that a device is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from threading import Lock
from types import MappingProxyType

from slimfleet.compression import SlimfleetError

__all__ = ["STATUS", "Refusals", "Refused"]

STATUS: Mapping[str, str] = MappingProxyType(
    {
        "certificate": "UNAUTHENTICATED",
        "expired": "UNAUTHENTICATED",
        "revoked": "PERMISSION_DENIED",
        "method": "UNIMPLEMENTED",
        "message": "INVALID_ARGUMENT",
        "size": "INVALID_ARGUMENT",
        "unknown_plan": "NOT_FOUND",
        "offset": "FAILED_PRECONDITION",
        "digest": "FAILED_PRECONDITION",
        "rate": "RESOURCE_EXHAUSTED",
        "slow": "DEADLINE_EXCEEDED",
        "connections": "UNAVAILABLE",
        "handshake": "UNAUTHENTICATED",
        "error": "INTERNAL",
    }
)
"""Reason -> status code of gRPC, which HTTPS names in a header."""


class Refused(SlimfleetError):
    """A call that is not served. `reason` is a key of `STATUS`; the message goes to the device."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    @property
    def status(self) -> str:
        """The status code."""
        return STATUS[self.reason]


class Refusals:
    """How often each reason has been given. Every thread may count."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = Lock()

    def count(self, reason: str) -> None:
        """Count one; a word that is none of `STATUS` counts as `error`."""
        with self._lock:
            self._counts[reason if reason in STATUS else "error"] += 1

    def counts(self) -> dict[str, int]:
        """Reason -> how often, for those that were given."""
        with self._lock:
            return dict(self._counts)
