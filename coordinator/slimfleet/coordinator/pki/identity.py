"""Identity: who a certificate says a device is. The chain to the authority has been checked by TLS."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from cryptography import x509

from slimfleet.compression import SlimfleetError
from slimfleet.coordinator.pki.certificates import DEVICE_URI

__all__ = ["Identity", "Unknown", "identity_of", "node_of"]


class Unknown(SlimfleetError):
    """A certificate that lets nobody in. `reason` is one word: `certificate`, `expired` or `revoked`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Identity:
    """A device, as its certificate names it."""

    name: str
    node: int
    """Number by which a coordinator knows it; it outlives the certificate."""
    serial: int
    expires_s: float
    """In seconds since 1970."""


def node_of(name: str) -> int:
    """The number of the device of this name: 64 bits of its SHA-256."""
    return int.from_bytes(hashlib.sha256(DEVICE_URI.encode() + name.encode()).digest()[:8])


def identity_of(certificate: bytes, now_s: float) -> Identity:
    """The device of a certificate, in PEM or DER. Raises Unknown where it names none, or has expired."""
    identity = _read(certificate)
    if now_s >= identity.expires_s:
        end = datetime.fromtimestamp(identity.expires_s, UTC)
        raise Unknown("expired", f"the certificate of {identity.name} expired on {end:%Y-%m-%d %H:%M} UTC")
    return identity


@lru_cache(maxsize=4_096)
def _read(certificate: bytes) -> Identity:
    try:
        is_pem = certificate.startswith(b"-----")
        load = x509.load_pem_x509_certificate if is_pem else x509.load_der_x509_certificate
        found = load(certificate)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (ValueError, x509.ExtensionNotFound) as error:
        raise Unknown("certificate", "the certificate cannot be read, or names nobody") from error
    devices = [uri.removeprefix(DEVICE_URI) for uri in uris if uri.startswith(DEVICE_URI)]
    if len(devices) != 1:
        raise Unknown("certificate", f"the certificate names {len(devices)} devices, one is needed")
    return Identity(
        name=devices[0],
        node=node_of(devices[0]),
        serial=found.serial_number,
        expires_s=found.not_valid_after_utc.timestamp(),
    )
