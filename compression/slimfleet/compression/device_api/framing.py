"""Framing: messages in a body of HTTP, as gRPC has them: a byte 0 (not compressed), four of length, the message."""

from __future__ import annotations

__all__ = ["CONTENT_TYPE", "PREFIX_BYTES", "STATUS_HEADER", "Frames", "Unframed", "framed"]

CONTENT_TYPE = "application/x-slimfleet"
STATUS_HEADER = "slimfleet-status"
"""Names the status of a call that was not served."""

PREFIX_BYTES = 5


class Unframed(ValueError):
    """Bytes that are no message. `is_too_long` tells those that announce one beyond the limit."""

    def __init__(self, problem: str, is_too_long: bool = False) -> None:
        super().__init__(problem)
        self.is_too_long = is_too_long


def framed(message: bytes) -> bytes:
    """A message with what goes before it."""
    return b"\0" + len(message).to_bytes(4) + message


class Frames:
    """Messages out of the pieces of a body, each of at most `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit, self._come = limit, bytearray()

    def add(self, data: bytes) -> None:
        """The next bytes of the body."""
        self._come += data

    def next(self) -> bytes | None:
        """The next message; None where it has not come whole. Raises Unframed where there can be none."""
        if len(self._come) < PREFIX_BYTES:
            return None
        if self._come[0] != 0:
            raise Unframed(
                f"a message framed with {self._come[0]}: 0 alone is known, which is not compressed"
            )
        end = PREFIX_BYTES + int.from_bytes(self._come[1:PREFIX_BYTES])
        if end > PREFIX_BYTES + self._limit:
            raise Unframed(f"a message of {end - PREFIX_BYTES} bytes: the limit is {self._limit}", True)
        if len(self._come) < end:
            return None
        message = bytes(self._come[PREFIX_BYTES:end])
        del self._come[:end]
        return message

    def end(self) -> None:
        """The body is over. Raises Unframed where a message is not."""
        if self._come:
            raise Unframed("the body ends in the middle of a message")
