"""Calls of a gateway that no honest device makes: messages as they are, in bytes, over either transport."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPSConnection
from pathlib import Path

import grpc

from slimfleet.compression.device_api import METHODS
from slimfleet.compression.device_api.framing import CONTENT_TYPE, STATUS_HEADER, framed


class Unserved(Exception):
    """What a caller was told in place of an answer."""

    def __init__(self, status: str, details: str) -> None:
        super().__init__(f"{status}: {details}")
        self.status, self.details = status, details


Call = Callable[..., None]


def tls(ca: Path, folder: Path, *protocols: str) -> ssl.SSLContext:
    """As a device with the keys in `folder` has it."""
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(folder / "device.crt", folder / "device.key")
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


@contextmanager
def channel(hall, name: str) -> Iterator[grpc.Channel]:
    """A channel of gRPC with the keys of a device."""
    folder = hall.pki.device(name)
    files = [hall.pki.ca_crt, folder / "device.key", folder / "device.crt"]
    credentials = grpc.ssl_channel_credentials(*(each.read_bytes() for each in files))
    with grpc.secure_channel(f"127.0.0.1:{hall.gateway.port}", credentials) as made:
        yield made


@contextmanager
def https(hall, name: str) -> Iterator[HTTPSConnection]:
    """A connection of HTTPS with the keys of a device."""
    context = tls(hall.pki.ca_crt, hall.pki.device(name), "http/1.1")
    with closing(HTTPSConnection("127.0.0.1", hall.gateway.port, timeout=20, context=context)) as made:
        yield made


@contextmanager
def raw(hall, name: str) -> Iterator[Call]:
    """Calls with the keys of a device, over the transport of `hall`: `call(method, messages, headers)`."""
    with channel(hall, name) as grpc_channel, https(hall, name) as connection:

        def over_grpc(method: str, messages: Iterable[bytes], headers: dict[str, str]) -> None:
            stub = grpc_channel.stream_stream(
                METHODS[method].path, request_serializer=None, response_deserializer=None
            )
            try:
                list(stub(iter(messages), metadata=tuple(headers.items())))
            except grpc.RpcError as error:
                raise Unserved(error.code().name, error.details()) from error

        def over_https(method: str, messages: Iterable[bytes], headers: dict[str, str]) -> None:
            body = (framed(each) for each in messages)
            connection.request("POST", METHODS[method].path, body, headers | {"Content-Type": CONTENT_TYPE})
            response = connection.getresponse()
            said = response.read()
            if response.status != 200:
                raise Unserved(response.headers[STATUS_HEADER], said.decode())

        over = {"grpc": over_grpc, "https": over_https}[hall.transport]
        yield lambda method, messages, headers=None: over(method, messages, headers or {})
