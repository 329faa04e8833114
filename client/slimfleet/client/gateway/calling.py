"""Calling: what a transport does for a device's calls, and how a call fails whatever the transport."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from slimfleet.compression import SlimfleetError
from slimfleet.compression.files import naming
from slimfleet.compression.foreign_text import foreign_text

__all__ = ["Away", "Busy", "Declined", "Keys", "Transport", "TransportName", "unserved"]

TransportName = Literal["auto", "grpc", "https"]

RATE = "RESOURCE_EXHAUSTED"

PASSING = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN", "INTERNAL", RATE, "ABORTED"}


class Away(SlimfleetError):
    """The gateway cannot be reached, or did not answer to the end: try again later."""


class Busy(Away):
    """The gateway answered that it is asked too often."""


class Declined(SlimfleetError):
    """The gateway does not serve the call; `status` is gRPC's word for why."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


def unserved(status: str, message: str) -> Away | Declined:
    """The error of a call that ended with a status of gRPC other than OK."""
    said = foreign_text(message)
    if status not in PASSING:
        return Declined(status, said)
    return (Busy if status == RATE else Away)(f"{status}: {said}")


@dataclass(frozen=True, slots=True)
class Keys:
    """Files in PEM: the authority's certificate, the device's own, and its key."""

    ca: Path
    certificate: Path
    key: Path

    @classmethod
    def of(cls, folder: Path) -> Keys:
        """Those in a folder that `slimfleet-coordinator pki device` has made."""
        return cls(folder / "ca.crt", folder / "device.crt", folder / "device.key")

    def check(self) -> None:
        """Raises DiskError where one cannot be read."""
        for path in (self.ca, self.certificate, self.key):
            with naming(path, "read"):
                path.read_bytes()


class Transport(Protocol):
    """What carries calls to a gateway."""

    def call(self, name: str, requests: Iterable[Any], patience_s: float) -> Iterator[Any]:
        """Call a method with a stream of messages, some of one; gives those of the answer.

        Raises Away or Declined. `patience_s` is how long the call may take in all.
        """
        ...

    def close(self) -> None:
        """Let the connection go; the next call connects anew."""
        ...
