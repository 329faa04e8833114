"""Transport over gRPC with mutual TLS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import grpc

from slimfleet.client.gateway.calling import Away, Busy, Keys, unserved
from slimfleet.compression.device_api import MAX_MESSAGE_BYTES, METHODS
from slimfleet.compression.files import naming

__all__ = ["OverGrpc"]


class OverGrpc:
    """Calls `target`, host:port. Connects with the first call."""

    def __init__(self, target: str, keys: Keys) -> None:
        self._target, self._keys = target, keys
        self._channel: grpc.Channel | None = None

    def call(self, name: str, requests: Iterable[Any], patience_s: float) -> Iterator[Any]:
        """As `Transport` has it."""
        method = METHODS[name]
        stub = self._opened().stream_stream(
            method.path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=method.response.FromString,
        )
        try:
            yield from stub(iter(requests), timeout=patience_s)
        except grpc.RpcError as error:
            failure = unserved(error.code().name, error.details() or "")
            if isinstance(failure, Away) and not isinstance(failure, Busy):
                self.close()
            raise failure from error

    def close(self) -> None:
        """As `Transport` has it."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _opened(self) -> grpc.Channel:
        if self._channel is None:
            self._channel = grpc.secure_channel(self._target, self._credentials(), _OPTIONS)
        return self._channel

    def _credentials(self) -> grpc.ChannelCredentials:
        """Read anew for every connection: certificates are rotated."""
        content = []
        for path in (self._keys.ca, self._keys.key, self._keys.certificate):
            with naming(path, "read"):
                content.append(path.read_bytes())
        return grpc.ssl_channel_credentials(*content)


_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
]
"""Probing only while a call is open: an idle phone stays asleep."""
