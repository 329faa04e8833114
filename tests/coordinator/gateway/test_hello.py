"""The greeting of TLS, as Python's own client sends it, whole, in pieces, and damaged."""

from __future__ import annotations

import random
import ssl

import pytest

from slimfleet.coordinator.gateway.hello import NotTls, protocols_in


def greeting(*names: str) -> bytes:
    context = ssl.create_default_context()
    if names:
        context.set_alpn_protocols(list(names))
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(there, back, server_hostname="fleet.example.org")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return back.read()


@pytest.mark.parametrize("names", [(), ("h2",), ("grpc-exp", "h2"), ("http/1.1",)])
def test_protocols_are_read_off_the_first_bytes(names):
    whole = greeting(*names)
    assert protocols_in(whole) == list(names)
    assert all(protocols_in(whole[:end]) is None for end in range(len(whole)))
    body = whole[5:]
    records = [body[i : i + 50] for i in range(0, len(body), 50)]
    cut = b"".join(b"\x16\x03\x01" + len(each).to_bytes(2) + each for each in records)
    assert protocols_in(cut) == list(names)


def test_anything_else_is_no_greeting_and_harms_nothing():
    rng, whole = random.Random(3), greeting("h2")
    for begins in (b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x00\x00", b"\x17\x03\x03\x00\x01a"):
        with pytest.raises(NotTls):
            protocols_in(begins)
    for _ in range(2_000):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            damaged[rng.randrange(1, len(damaged))] = rng.randrange(256)
        try:
            found = protocols_in(bytes(damaged))
        except NotTls:
            continue
        assert found is None or all(isinstance(name, str) for name in found)
