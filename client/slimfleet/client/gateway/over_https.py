"""Transport over HTTPS with mutual TLS, with Python's own library: where no gRPC gets through, or none is installed."""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from typing import Any

from google.protobuf.message import DecodeError

from slimfleet.client.gateway.calling import Away, Busy, Declined, Keys, unserved
from slimfleet.compression import BadInput
from slimfleet.compression.device_api import MAX_MESSAGE_BYTES, METHODS
from slimfleet.compression.device_api.framing import CONTENT_TYPE, STATUS_HEADER, Frames, Unframed, framed
from slimfleet.compression.errors import DiskError

__all__ = ["OverHttps"]

READ_BYTES = 65_536
LONGEST_REFUSAL = 4_096
CONNECT_S = 30.0

KEPT_S = 50.0
"""A connection that was idle for longer is not used again: a box on the way may have forgotten it."""

PROBING = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 20, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 120_000}
"""While a call is open, its connection is probed (seconds, times, milliseconds); an idle phone stays asleep."""


class OverHttps:
    """Calls `target`, host:port. Connects with the first call."""

    def __init__(self, target: str, keys: Keys) -> None:
        """Raises BadInput where `target` is no host:port."""
        host, _, port = target.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
            raise BadInput(f"the gateway {target!r} is no HOST:PORT")
        self._host, self._port, self._keys = host.strip("[]"), int(port), keys
        self._connection: HTTPSConnection | None = None
        self._rested_s = 0.0

    def call(self, name: str, requests: Iterable[Any], patience_s: float) -> Iterator[Any]:
        """As `Transport` has it."""
        method, until_s = METHODS[name], time.monotonic() + patience_s
        is_over = False
        """Whether the connection waits for another call."""
        try:
            response = self._response(method.path, requests, patience_s)
            for encoded in _messages(response, until_s):
                yield method.response.FromString(encoded)
            is_over = True
        except DiskError:
            raise
        except (Busy, Declined):
            is_over = True
            raise
        except (OSError, HTTPException, Unframed, DecodeError) as error:
            raise Away(f"UNAVAILABLE: {error or type(error).__name__}") from error
        finally:
            if is_over:
                self._rest()
            else:
                self.close()

    def close(self) -> None:
        """As `Transport` has it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _response(self, path: str, requests: Iterable[Any], patience_s: float) -> HTTPResponse:
        """What the gateway begins to answer. Raises Declined or Away where it is a refusal."""
        connection = self._opened()
        connection.sock.settimeout(patience_s)
        body = (framed(each.SerializeToString()) for each in requests)
        with suppress(OSError):  # a gateway that does not read on may have said why
            connection.request("POST", path, body, {"Content-Type": CONTENT_TYPE})
        response = connection.getresponse()
        if response.status == 200 and response.headers.get_content_type() == CONTENT_TYPE:
            return response
        status = response.headers.get(STATUS_HEADER)
        if status is None:
            raise Away(f"UNAVAILABLE: HTTP {response.status} from what is no gateway")
        raise unserved(status, response.read(LONGEST_REFUSAL).decode(errors="replace"))

    def _opened(self) -> HTTPSConnection:
        """A connection, the last one where it can be used again."""
        kept = self._connection
        if kept is not None and (time.monotonic() - self._rested_s > KEPT_S or _has_ended(kept)):
            self.close()
        if self._connection is None:
            self._connection = HTTPSConnection(
                self._host, self._port, timeout=CONNECT_S, context=self._context()
            )
            self._connection.connect()
            for option, value in PROBING.items():
                if hasattr(socket, option):
                    self._connection.sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return self._connection

    def _rest(self) -> None:
        self._rested_s = time.monotonic()
        if self._connection is not None and self._connection.sock is not None:
            self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)

    def _context(self) -> ssl.SSLContext:
        """Reads the files anew for every connection: certificates are rotated."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        self._keys.check()
        context.load_verify_locations(self._keys.ca)
        context.load_cert_chain(self._keys.certificate, self._keys.key)
        return context


def _has_ended(connection: HTTPSConnection) -> bool:
    """Whether the other end has said something unasked, which is that it closes."""
    return connection.sock is None or bool(select.select([connection.sock], [], [], 0)[0])


def _messages(response: HTTPResponse, until_s: float) -> Iterator[bytes]:
    frames = Frames(MAX_MESSAGE_BYTES)
    while data := response.read1(READ_BYTES):
        if time.monotonic() > until_s:
            raise TimeoutError("the answer took too long")
        frames.add(data)
        while (message := frames.next()) is not None:
            yield message
    frames.end()
