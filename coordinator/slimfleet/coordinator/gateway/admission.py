"""Admission: whether a call is served at all: a known device, and not too many calls of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from slimfleet.coordinator.gateway.refusal import Refused
from slimfleet.coordinator.pki import Identity, Revocations, Unknown, identity_of

__all__ = ["Admission"]

BURST_S = 5.0
"""Calls of so many seconds may come at once."""


@dataclass(slots=True)
class _Bucket:
    left: float
    at_s: float


class Admission:
    """Lets in devices whose certificates hold, each with `calls_per_s` on average.

    `clock` is in seconds, `today` in seconds since 1970.
    """

    def __init__(
        self,
        revocations: Revocations,
        calls_per_s: float,
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], float] = time.time,
    ) -> None:
        self._revocations, self._calls_per_s = revocations, calls_per_s
        self._clock, self._today = clock, today
        self._buckets: dict[int, _Bucket] = {}
        """By node: there are no more than certificates."""

    def admit(self, certificate: bytes | None) -> Identity:
        """The device that calls. Raises Refused."""
        if certificate is None:
            raise Refused("certificate", "no certificate came with the connection")
        try:
            identity = identity_of(certificate, self._today())
            self._revocations.check(identity)
        except Unknown as error:
            raise Refused(error.reason, str(error)) from error
        self._take(identity.node)
        return identity

    def _take(self, node: int) -> None:
        now_s, most = self._clock(), max(BURST_S * self._calls_per_s, 1.0)
        bucket = self._buckets.setdefault(node, _Bucket(most, now_s))
        bucket.left = min(bucket.left + (now_s - bucket.at_s) * self._calls_per_s, most)
        bucket.at_s = now_s
        if bucket.left < 1.0:
            raise Refused("rate", f"more than {self._calls_per_s:g} calls a second: wait a second")
        bucket.left -= 1.0
