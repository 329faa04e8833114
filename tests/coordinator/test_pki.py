"""Keys and certificates: what is made, who may read it, what is never overwritten, and what the command says."""

from __future__ import annotations

import stat
import sys

import pytest
from cryptography import x509

from slimfleet.compression import BadInput
from slimfleet.coordinator import cli
from slimfleet.coordinator.pki import PkiFolder, Revocations, identity_of


@pytest.fixture
def pki(monkeypatch, tmp_path):
    """Run `slimfleet-coordinator pki` with these arguments; gives its exit code."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["slimfleet-coordinator", "pki", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    return run


def test_a_federation_s_keys_are_private_and_never_overwritten(pki, tmp_path, capsys):
    assert pki("init", "pki") == pki("server", "pki", "fleet.example.org", "192.0.2.7") == 0
    assert pki("device", "pki", "pi-1", "pi-2") == 0
    private = list((tmp_path / "pki").rglob("*.key"))
    assert len(private) == 2 + 2 * 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    before = {path: path.read_bytes() for path in (tmp_path / "pki").rglob("*") if path.is_file()}
    for again in (("init", "pki"), ("server", "pki", "other"), ("device", "pki", "pi-1")):
        assert pki(*again) == 2
        assert "is not overwritten" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "pki").rglob("*") if path.is_file()} == before
    names = x509.load_pem_x509_certificate(before[tmp_path / "pki" / "server.crt"]).extensions
    found = names.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(each.value) for each in found] == ["fleet.example.org", "192.0.2.7"]
    public = (tmp_path / "pki" / "devices" / "pi-1" / "flower.key.pub").read_text()
    assert public.startswith("ecdsa-sha2-nistp256 ")


def test_a_rotated_device_is_the_same_and_all_its_certificates_are_revoked(pki, tmp_path):
    folder = PkiFolder(tmp_path / "pki")
    assert pki("init", "pki") == pki("device", "pki", "pi", "pi-1") == 0
    path = folder.device("pi") / "device.crt"
    first = identity_of(path.read_bytes(), 0.0)
    assert pki("rotate", "pki", "pi") == 0
    second = identity_of(path.read_bytes(), 0.0)
    assert (first.node, first.name) == (second.node, second.name)
    assert first.serial != second.serial
    assert pki("revoke", "pki", "pi") == 0
    revoked = Revocations(folder.revoked, folder.authority_certificate())
    for identity in (first, second):
        with pytest.raises(Exception, match="the certificate of pi is revoked"):
            revoked.check(identity)
    revoked.check(identity_of((folder.device("pi-1") / "device.crt").read_bytes(), 0.0))


def test_the_server_s_new_certificate_has_the_old_names(pki, tmp_path):
    assert pki("init", "pki") == pki("server", "pki", "a.example", "2001:db8::1") == 0
    old = (tmp_path / "pki" / "server.crt").read_bytes()
    assert pki("rotate", "pki", "server") == 0
    new = (tmp_path / "pki" / "server.crt").read_bytes()
    san = x509.SubjectAlternativeName
    first, second = (
        x509.load_pem_x509_certificate(each).extensions.get_extension_for_class(san).value
        for each in (old, new)
    )
    assert old != new
    assert first == second


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("device", "pki", "../x"), "cannot be called '../x'"),
        (("device", "none", "pi"), "there is no none/ca.key"),
        (("server", "pki", "a b"), "'a b' is neither a host name nor an IP address"),
        (("revoke", "pki", "pi-9"), "no certificate was issued to 'pi-9'; there are none"),
        (("rotate", "pki", "pi-9"), "device.crt"),
    ],
)
def test_a_wrong_argument_is_refused_in_one_line(pki, capsys, arguments, said):
    assert pki("init", "pki") == 0
    capsys.readouterr()
    assert pki(*arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_list_that_another_authority_signed_is_refused(tmp_path):
    one, other = PkiFolder(tmp_path / "one"), PkiFolder(tmp_path / "other")
    for folder in (one, other):
        folder.init("test", 10)
    with pytest.raises(BadInput, match="is not signed by the authority"):
        Revocations(other.revoked, one.authority_certificate())
