"""HTTP that no honest device speaks: refused or timed out, counted, and harmless to the others."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest
from raw_calls import https, tls
from relay import eventually

from slimfleet.client.gateway.calling import Away, Keys
from slimfleet.client.gateway.connection import Connection
from slimfleet.client.gateway.over_https import OverHttps
from slimfleet.compression import BadInput, Payload
from slimfleet.compression.device_api import METHODS, CheckInRequest, CheckInResponse, UploadUpdateRequest
from slimfleet.compression.device_api.framing import CONTENT_TYPE, STATUS_HEADER, Frames, framed

pytestmark = pytest.mark.parametrize("transport", ["https"])

CHECK_IN = METHODS["CheckIn"].path
EMPTY = framed(b"")


def head(path: str = CHECK_IN, method: str = "POST", **headers: object) -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: gateway",
        *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def served(hall, name: str = "pi-2") -> bool:
    return hall.connection(name).check_in("", "").WhichOneof("next") == "wait"


@contextmanager
def stream(hall, name: str = "pi-1"):
    """A connection of TLS, for bytes as they are."""
    context = tls(hall.pki.ca_crt, hall.pki.device(name))  # without a protocol, as old clients are
    with (
        socket.create_connection(("127.0.0.1", hall.gateway.port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        secure.settimeout(15)
        yield secure


def all_of(secure: ssl.SSLSocket) -> bytes:
    """All that comes until the other end closes."""
    found = bytearray()
    try:
        while data := secure.recv(65_536):
            found += data
    except (ConnectionResetError, ssl.SSLError):
        pass
    return bytes(found)


@pytest.mark.parametrize(
    ("sent", "status", "reason"),
    [
        (head("/"), 501, "method"),
        (head("/slimfleet.device.v1.DeviceService/Shutdown", Content_Length=5) + EMPTY, 501, "method"),
        (head(method="GET"), 501, "method"),
        (head(method="PUT", Content_Length=5) + EMPTY, 501, "method"),
        (head(Content_Length=0), 400, "message"),
        (head(Content_Length=3) + b"\0\0\0", 400, "message"),
        (head(Content_Length=7) + b"\0\0\0\0\3\1\2", 400, "message"),
        (head(Content_Length=6) + b"\1\0\0\0\1\0", 400, "message"),  # compressed
        (head(Content_Length=9_999_999_999) + b"\0\xff\xff\xff\xff", 400, "size"),
        (head(Transfer_Encoding="chunked") + b"ffffffff\r\n\0\0\4\0\0", 400, "size"),
        (head(Transfer_Encoding="chunked") + b"many\r\n", 400, "message"),
        (head(Transfer_Encoding="chunked") + b"5" * 9_000, 400, "message"),
        (head(Transfer_Encoding="gzip") + EMPTY, 400, "message"),
        (head(Content_Length="a few") + EMPTY, 400, "message"),
        (head(Name="x" * 10_000), 400, "message"),
        (b"x" * 10_000, 400, "message"),
        (b"\0\1\2\r\n\r\n", 400, "message"),
        (b"PRI * HTTP/2.0\r\n\r\n", 501, "method"),
    ],
)
def test_what_is_no_call_is_refused_with_its_reason(opened, sent, status, reason):
    hall = opened(idle_s=2.0)
    with stream(hall) as secure:
        secure.sendall(sent)
        first = secure.recv(65_536)
        assert first.startswith(f"HTTP/1.1 {status} ".encode())
        assert f"\r\n{STATUS_HEADER}: ".encode() in first
        assert f"\r\n\r\n{reason}: ".encode() in first
    assert hall.refused() == {reason: 1}
    assert served(hall)


def test_calls_sent_at_once_are_served_one_after_another(opened):
    hall = opened(calls_per_s=2.0, hold_s=0.0)  # ten at once are let through
    call = head(Content_Length=5) + EMPTY
    with stream(hall) as secure:
        secure.sendall(call * 13 + head(Content_Length=5, Connection="close") + EMPTY)
        answers = all_of(secure).split(b"HTTP/1.1 ")[1:]
    statuses = [each[:3] for each in answers]
    assert statuses[:10] == [b"200"] * 10
    assert len(statuses) == 14
    assert hall.refused()["rate"] == statuses.count(b"429") >= 3
    assert served(hall)


def test_a_thousand_retries_on_one_connection_cost_the_others_nothing(opened):
    hall = opened(calls_per_s=1.0)
    with https(hall, "pi-1") as connection:
        for _ in range(1_000):
            connection.request("POST", METHODS["Report"].path, b"")
            response = connection.getresponse()
            assert response.read()
            assert response.status in (400, 429)
    assert hall.refused()["rate"] > 900
    assert served(hall)


def test_a_body_that_never_ends_is_cut_off(opened, big_work):
    """Refused at its first message, it goes on for ever."""
    hall = opened()
    message = framed(UploadUpdateRequest(plan_id=7, data=bytes(60_000)).SerializeToString())
    chunk = f"{len(message):x}\r\n".encode() + message + b"\r\n"
    with stream(hall) as secure:
        secure.sendall(head(METHODS["UploadUpdate"].path, Transfer_Encoding="chunked"))
        with pytest.raises(OSError, match=r"[Bb]roken pipe|reset|EOF"):
            secure.sendall(chunk * 2_000)
    assert hall.refused() == {"unknown_plan": 1}
    assert served(hall)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (head()[:40], "handshake"),
        (head(Content_Length=5), "slow"),
        (head(Content_Length=5) + b"\0\0", "slow"),
    ],
)
def test_a_request_that_stands_still_is_ended(opened, sent, reason):
    hall = opened(idle_s=0.7)
    with stream(hall) as secure:
        for each in sent:
            secure.sendall(bytes((each,)))
        assert (b" 504 " in all_of(secure)) == (reason == "slow")
    eventually(lambda: hall.refused() == {reason: 1}, "it is counted")
    assert served(hall)


def test_a_known_device_that_says_no_more_is_let_go(opened):
    hall = opened(idle_s=0.5, hold_s=0.0)
    for rest in (b"", head()[:40]):
        with stream(hall) as secure:
            secure.sendall(head(Content_Length=5) + EMPTY + rest)
            began = time.monotonic()
            assert all_of(secure).count(b"HTTP/1.1 200") == 1
            assert time.monotonic() - began < 10
    assert hall.refused() == {}
    assert served(hall)


def test_a_download_that_is_not_read_is_ended(opened, big_work):
    # More than the buffers of the sockets on the way hold.
    hall, work = opened(idle_s=0.5), replace(big_work(), payload=Payload(bytes(40_000_000)))
    hall.gateway.link.send([work])
    with https(hall, "pi-1") as connection:
        asked = framed(METHODS["DownloadModel"].request(plan_id=work.plan_id).SerializeToString())
        connection.request("POST", METHODS["DownloadModel"].path, asked)
        eventually(lambda: hall.refused().get("slow", 0) == 1, "it is counted")
    assert served(hall)


def test_without_a_certificate_there_is_no_service(opened, pki):
    hall = opened(idle_s=1.0)
    context = ssl.create_default_context(cafile=pki.ca_crt)
    with socket.create_connection(("127.0.0.1", hall.gateway.port)) as plain:
        plain.settimeout(10)
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
            secure.sendall(head(Content_Length=5) + EMPTY)
            assert all_of(secure) == b""
    eventually(lambda: hall.refused() == {"handshake": 1}, "it is counted")
    assert served(hall)


def test_old_versions_of_tls_are_not_spoken(opened, pki):
    hall = opened(idle_s=1.0)
    context = tls(pki.ca_crt, pki.device("pi-1"), "http/1.1")
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", hall.gateway.port)) as plain,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")
    assert served(hall)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_checks_in_as_the_page_says(opened, pki, tmp_path):
    hall = opened(wait_s=7.0)
    keys = pki.device("pi-1")
    (tmp_path / "request.bin").write_bytes(framed(CheckInRequest(condition_json="{}").SerializeToString()))
    # With a large header curl waits to be told to go on.
    arguments = ["--cacert", pki.ca_crt, "--cert", keys / "device.crt", "--key", keys / "device.key"]
    arguments += [
        "--data-binary",
        "@request.bin",
        "-H",
        f"Content-Type: {CONTENT_TYPE}",
        "-H",
        "Expect: 100-continue",
    ]
    url = f"https://127.0.0.1:{hall.gateway.port}{CHECK_IN}"
    said = subprocess.run(
        ["curl", "-sS", *arguments, url], cwd=tmp_path, capture_output=True, check=True, timeout=30
    )
    frames = Frames(1_000)
    frames.add(said.stdout)
    assert CheckInResponse.FromString(frames.next()).wait.seconds == 7.0
    frames.end()


def test_a_device_takes_no_answer_of_another_server_for_one(opened, pki, tmp_path):
    """One with a certificate of the right authority, that speaks HTTP and no device API."""
    with pytest.raises(BadInput, match="HOST:PORT"):
        OverHttps("gateway", Keys.of(pki.device("pi-1")))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server_crt, pki.server_key)
    answers = iter(
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"HTTP/1.1 302 Found\r\n\r\n", b"SSH-2.0\r\n")
    )
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        listener.settimeout(10)

        def answer():
            for each in answers:
                plain, _ = listener.accept()
                with context.wrap_socket(plain, server_side=True) as secure:
                    secure.recv(65_536)
                    secure.sendall(each)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        calls = Connection(OverHttps(f"127.0.0.1:{port}", Keys.of(pki.device("pi-1"))))
        for _ in range(3):
            with pytest.raises(Away):
                calls.check_in("", "")
        thread.join(10)
        calls.close()
