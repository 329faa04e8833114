"""PKI folder: the keys and certificates of a federation as files, made by `slimfleet-coordinator pki`.

    ca.crt ca.key             the authority; anyone with the key can admit devices
    server.crt server.key     the server
    revoked.pem               the revocation list
    devices/NAME/             what a device takes with it: ca.crt device.crt device.key, and its key for Flower
    issued/NAME-SERIAL.crt    every certificate that was ever issued to a device, so that all can be revoked

Private keys are readable by their owner alone. Nothing is overwritten except on `rotate`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from slimfleet.compression import BadInput
from slimfleet.compression.files import naming, write_atomically
from slimfleet.coordinator.pki.certificates import Authority, new_authority, new_key

__all__ = ["PkiFolder"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
HOST = re.compile(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:]+")


class PkiFolder:
    """The keys and certificates under `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ca_crt, self.server_crt, self.server_key = (
            root / "ca.crt",
            root / "server.crt",
            root / "server.key",
        )
        self.revoked = root / "revoked.pem"

    def device(self, name: str) -> Path:
        """The folder of a device. Raises BadInput where the name is none."""
        if not NAME.fullmatch(name):
            raise BadInput(
                f"a device cannot be called {name!r}: letters, digits, '.', '_' and '-', at most 63"
            )
        return self.root / "devices" / name

    def init(self, name: str, days: int) -> None:
        """Make an authority called `name`, and its empty revocation list."""
        with naming(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        authority = new_authority(name, days)
        _write_new(self.root / "ca.key", _private(authority.key))
        _write_new(self.ca_crt, _public(authority.certificate))
        _write_new(self.revoked, authority.revocations(()).public_bytes(Encoding.PEM))

    def add_server(self, hosts: Sequence[str], days: int) -> None:
        """Make the key and certificate of the server, which is reached under these host names and addresses."""
        wrong = next((host for host in hosts if not HOST.fullmatch(host)), None)
        if wrong is not None:
            raise BadInput(f"{wrong!r} is neither a host name nor an IP address")
        _refuse_existing(self.server_key, self.server_crt)
        self._make_server(hosts, days)

    def add_device(self, name: str, days: int) -> None:
        """Make the key and certificate of a device."""
        folder = self.device(name)
        authority = self._authority()
        _refuse_existing(folder / "device.key", folder / "device.crt")
        self._make_device(authority, name, days)

    def rotate_server(self, days: int) -> None:
        """Give the server a new key and certificate, for the same names."""
        old = self._certificate(self.server_crt)
        names = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = [str(each.value) for each in names]
        self._make_server(hosts, days)

    def rotate_device(self, name: str, days: int) -> None:
        """Give a device a new key and certificate; the old ones hold until they expire, or all of it is revoked."""
        self._certificate(self.device(name) / "device.crt")
        self._make_device(self._authority(), name, days)

    def revoke(self, name: str) -> int:
        """Revoke every certificate that was issued to a device; returns how many that are.

        A device that gets a new certificate afterwards is the same device again.
        """
        self.device(name)
        certificates = [self._certificate(path) for path in self._issued(name)]
        if not certificates:
            raise BadInput(f"no certificate was issued to {name!r}; there are {self._known()}")
        authority = self._authority()
        before = x509.load_pem_x509_crl(_read(self.revoked))
        serials = [each.serial_number for each in (*before, *certificates)]
        write_atomically(self.revoked, authority.revocations(serials).public_bytes(Encoding.PEM))
        return len(certificates)

    def authority_certificate(self) -> x509.Certificate:
        """The certificate of the authority."""
        return self._certificate(self.ca_crt)

    def _make_server(self, hosts: Sequence[str], days: int) -> None:
        key = new_key()
        certificate = self._authority().server(hosts, key.public_key(), days)
        write_atomically(self.server_key, _private(key), private=True)
        write_atomically(self.server_crt, _public(certificate))

    def _make_device(self, authority: Authority, name: str, days: int) -> None:
        folder, key = self.device(name), new_key()
        certificate = authority.device(name, key.public_key(), days)
        with naming(folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            (self.root / "issued").mkdir(exist_ok=True)
        # Written down before it is handed out: what is out there can always be revoked.
        _write_new(self.root / "issued" / f"{name}-{certificate.serial_number:x}.crt", _public(certificate))
        ssh = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        ssh_public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        write_atomically(folder / "device.key", _private(key), private=True)
        write_atomically(folder / "device.crt", _public(certificate))
        write_atomically(folder / "ca.crt", _public(authority.certificate))
        write_atomically(folder / "flower.key", ssh, private=True)
        write_atomically(folder / "flower.key.pub", ssh_public + f" {name}\n".encode())

    def _authority(self) -> Authority:
        content = _read(self.root / "ca.key")
        try:
            key = load_pem_private_key(content, password=None)
        except (ValueError, TypeError) as error:
            raise BadInput(f"{self.root / 'ca.key'} is no private key of slimfleet's") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise BadInput(f"{self.root / 'ca.key'} is no key on an elliptic curve")
        return Authority(self.authority_certificate(), key)

    def _certificate(self, path: Path) -> x509.Certificate:
        content = _read(path)
        try:
            return x509.load_pem_x509_certificate(content)
        except ValueError as error:
            raise BadInput(f"{path} is no certificate") from error

    def _issued(self, name: str) -> list[Path]:
        """Names end with a serial number without a dash, so that `a` is not `a-b`."""
        found = (self.root / "issued").glob("*.crt")
        return sorted(path for path in found if path.stem.rpartition("-")[0] == name)

    def _known(self) -> str:
        names = {path.stem.rpartition("-")[0] for path in (self.root / "issued").glob("*.crt")}
        return ", ".join(sorted(names)) or "none"


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _public(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _read(path: Path) -> bytes:
    if not path.exists():
        raise BadInput(f"there is no {path}: slimfleet-coordinator pki makes it")
    with naming(path, "read"):
        return path.read_bytes()


def _refuse_existing(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            raise BadInput(f"{path} exists, and is not overwritten: pki rotate makes a new one")


def _write_new(path: Path, content: bytes) -> None:
    if path.exists():
        raise BadInput(f"{path} exists, and is not overwritten")
    write_atomically(path, content, private=path.suffix == ".key")
