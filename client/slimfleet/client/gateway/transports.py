"""Transports: which of them a device takes to its gateway."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from slimfleet.client.gateway.calling import Away, Busy, Keys, Transport, TransportName
from slimfleet.client.gateway.connection import Connection

__all__ = ["connection_to", "transport_to"]

Maker: TypeAlias = Callable[[str, Keys], Transport]


def connection_to(target: str, keys: Path, name: TransportName) -> Connection:
    """A connection by the transport of this name, with the keys in a folder. Raises what `transport_to` does."""
    return Connection(transport_to(target, Keys.of(keys), name))


def transport_to(target: str, keys: Keys, name: TransportName = "auto") -> Transport:
    """The transport of this name to `target`, host:port.

    `auto` is gRPC where that is installed, and HTTPS where it is not or a check-in does not get through; from then on
    each in turn. Raises DiskError where a key cannot be read, and ModuleNotFoundError where gRPC is asked for and not
    installed.
    """
    keys.check()
    if name != "auto":
        return _MAKERS[name](target, keys)
    if find_spec("grpc") is None:
        return _https(target, keys)
    return _Either(target, keys, _MAKERS.values())


class _Either:
    """The first transport until a check-in finds no gateway by it; the next then, and so on round."""

    def __init__(self, target: str, keys: Keys, makers: Iterable[Maker]) -> None:
        self._target, self._keys, self._makers = target, keys, deque(makers)
        self._transport = self._made()

    def call(self, name: str, requests: Iterable[Any], patience_s: float) -> Iterator[Any]:
        """As `Transport` has it."""
        try:
            yield from self._transport.call(name, requests, patience_s)
        except Away as away:
            if name == "CheckIn" and not isinstance(away, Busy):
                self.close()
                self._makers.rotate(-1)
                self._transport = self._made()
            raise

    def close(self) -> None:
        """As `Transport` has it."""
        self._transport.close()

    def _made(self) -> Transport:
        return self._makers[0](self._target, self._keys)


def _grpc(target: str, keys: Keys) -> Transport:
    from slimfleet.client.gateway.over_grpc import OverGrpc

    return OverGrpc(target, keys)


def _https(target: str, keys: Keys) -> Transport:
    from slimfleet.client.gateway.over_https import OverHttps

    return OverHttps(target, keys)


_MAKERS: Mapping[str, Maker] = MappingProxyType({"grpc": _grpc, "https": _https})
"""In the order in which `auto` tries them."""
