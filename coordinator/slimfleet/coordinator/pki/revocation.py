"""Revocation: the list of certificates that count no more, read anew whenever its file changes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from slimfleet.compression import BadInput
from slimfleet.compression.files import naming
from slimfleet.coordinator.pki.identity import Identity, Unknown

__all__ = ["Revocations"]

LOOK_S = 1.0
"""How often the file is looked at, at most."""

log = logging.getLogger(__name__)


class Revocations:
    """The revocation list in a file, signed by an authority."""

    def __init__(
        self, path: Path, authority: x509.Certificate, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`clock` is in seconds. Raises BadInput where the file cannot be read or is not signed by the authority."""
        self._path, self._authority, self._clock = path, authority, clock
        self._looked_s = clock()
        self._seen = self._stamp()
        self._serials = self._read()

    def check(self, identity: Identity) -> None:
        """Raise Unknown where the certificate of `identity` is revoked."""
        self._look()
        if identity.serial in self._serials:
            raise Unknown("revoked", f"the certificate of {identity.name} is revoked")

    def _look(self) -> None:
        """A list that cannot be read leaves the last one standing: nobody comes back in by it."""
        if self._clock() - self._looked_s < LOOK_S:
            return
        self._looked_s = self._clock()
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._serials = self._read()
        except BadInput as error:
            log.error("%s; the list that was read before holds on", error)

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> frozenset[int]:
        with naming(self._path, "read"):
            content = self._path.read_bytes()
        key = self._authority.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        try:
            revoked = x509.load_pem_x509_crl(content)
        except ValueError as error:
            raise BadInput(f"{self._path} is no revocation list") from error
        if not revoked.is_signature_valid(key):
            raise BadInput(f"{self._path} is not signed by the authority of the federation")
        return frozenset(each.serial_number for each in revoked)
