"""Greeting of TLS: which protocols a client names, before anything is encrypted (RFC 8446, 4.1.2; RFC 7301)."""

from __future__ import annotations

from slimfleet.compression import SlimfleetError

__all__ = ["LONGEST_HELLO", "NotTls", "protocols_in"]

LONGEST_HELLO = 16_384
"""Bytes; common ones have 300 to 2,000."""

HANDSHAKE, CLIENT_HELLO, ALPN = 22, 1, 16


class NotTls(SlimfleetError):
    """A connection that does not begin as TLS does."""


class _Bytes:
    """Reads numbers and lengths off bytes. Raises NotTls where they end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        taken = self._data[self._at : self._at + count]
        if len(taken) < count:
            raise NotTls("the greeting ends in the middle of a field")
        self._at += count
        return taken

    def number(self, count: int) -> int:
        """A number of so many bytes."""
        return int.from_bytes(self.take(count))

    def block(self, count: int) -> _Bytes:
        """What a length of so many bytes announces."""
        return _Bytes(self.take(self.number(count)))

    def __bool__(self) -> bool:
        return self._at < len(self._data)


def protocols_in(begins: bytes) -> list[str] | None:
    """The protocols that the greeting at the beginning of a connection names, in its order; None where it goes on.

    Raises NotTls where it is no greeting.
    """
    if begins and begins[0] != HANDSHAKE:
        raise NotTls("it does not begin with a handshake")
    body = b""
    at = 0
    while at + 5 <= len(begins):  # a greeting may be cut into several records
        length = int.from_bytes(begins[at + 3 : at + 5])
        if begins[at] != HANDSHAKE or not length:
            raise NotTls("a record of the greeting is none")
        body += begins[at + 5 : at + 5 + length]
        at += 5 + length
        if at > len(begins):
            return None
        if len(body) >= 4 and len(body) >= 4 + int.from_bytes(body[1:4]):
            return _protocols(body)
    return None


def _protocols(body: bytes) -> list[str]:
    message = _Bytes(body)
    if message.number(1) != CLIENT_HELLO:
        raise NotTls("its first message is no greeting of a client")
    hello = message.block(3)
    hello.take(2 + 32)
    for length in (1, 2, 1):  # session, ciphers, compression
        hello.block(length)
    if not hello:
        return []
    extensions = hello.block(2)
    names = []
    while extensions:
        kind, content = extensions.number(2), extensions.block(2)
        if kind == ALPN:
            listed = content.block(2)
            while listed:
                names.append(listed.take(listed.number(1)).decode("ascii", "replace"))
    return names
