"""Certificates: keys, an authority, what it signs, and its list of what it has revoked (X.509, RFC 5280).

Keys are on the curve P-256, which every TLS library has. An authority signs no other authority. A device's name stands
in its certificate as the URI `slimfleet:device:NAME`; that of a server has host names and addresses, and cannot be used
as a device's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["DEVICE_URI", "Authority", "host_names", "new_authority", "new_key"]

DEVICE_URI = "slimfleet:device:"

CLOCK_SKEW = timedelta(minutes=5)
"""A new certificate is valid from a little earlier on: a device's clock may be late."""

LIST_LASTS = timedelta(days=3_650)
"""The gateway reads the list anew whenever it changes, so it need not expire."""


def new_key() -> ec.EllipticCurvePrivateKey:
    """A new private key."""
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority: its certificate, and the key that it signs with."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def device(self, name: str, key: ec.EllipticCurvePublicKey, days: int) -> x509.Certificate:
        """A certificate by which a device is known under `name`."""
        identity = x509.UniformResourceIdentifier(DEVICE_URI + name)
        return self._signed(name, key, days, [identity], ExtendedKeyUsageOID.CLIENT_AUTH)

    def server(self, hosts: Sequence[str], key: ec.EllipticCurvePublicKey, days: int) -> x509.Certificate:
        """A certificate of a server that is reached under these host names and addresses."""
        return self._signed(hosts[0], key, days, host_names(hosts), ExtendedKeyUsageOID.SERVER_AUTH)

    def revocations(self, serials: Iterable[int]) -> x509.CertificateRevocationList:
        """The list of these serial numbers, signed."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now)
            .next_update(now + LIST_LASTS)
        )
        for serial in sorted(set(serials)):
            revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
            builder = builder.add_revoked_certificate(revoked.build())
        return builder.sign(self.key, hashes.SHA256())

    def _signed(
        self,
        name: str,
        key: ec.EllipticCurvePublicKey,
        days: int,
        names: Sequence[x509.GeneralName],
        use: x509.ObjectIdentifier,
    ) -> x509.Certificate:
        issuer = self.certificate.public_key()
        assert isinstance(issuer, ec.EllipticCurvePublicKey)
        end = min(datetime.now(UTC) + timedelta(days=days), self.certificate.not_valid_after_utc)
        return (
            _builder(name, key, end)
            .issuer_name(self.certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
            .sign(self.key, hashes.SHA256())
        )


def new_authority(name: str, days: int) -> Authority:
    """An authority called `name`, of a new key."""
    key = new_key()
    certificate = (
        _builder(name, key.public_key(), datetime.now(UTC) + timedelta(days=days))
        .issuer_name(_named(name))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def host_names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    """Host names and IP addresses as a certificate has them."""
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return names


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _builder(name: str, key: ec.EllipticCurvePublicKey, end: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - CLOCK_SKEW)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signature: bool = False, signs: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signature,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
