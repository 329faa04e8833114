"""Transports: which of them a device takes to its gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Literal

from slimfleet.client.gateway.calling import Away, Busy, Keys, Transport
from slimfleet.compression import BadInput

__all__ = ["TransportName", "transport_to"]

TransportName = Literal["auto", "grpc", "https"]


def transport_to(target: str, keys: Keys, name: TransportName = "auto") -> Transport:
    """The transport of this name to `target`, host:port. `auto` takes either, gRPC first where it is installed.

    Raises DiskError where a key cannot be read, and BadInput where gRPC is asked for and not installed.
    """
    keys.check()
    if name == "auto":
        makers = [_grpc, _https] if find_spec("grpc") is not None else [_https]
    else:
        makers = [_MAKERS[name]]
    made = [make(target, keys) for make in makers]
    return made[0] if len(made) == 1 else Either(made)


class Either:
    """The first transport until a check-in finds no gateway by it; the next then, and so on round."""

    def __init__(self, transports: list[Transport]) -> None:
        self._transports = transports

    def call(self, name: str, requests: Iterable[Any], patience_s: float) -> Iterator[Any]:
        """As `Transport` has it."""
        try:
            yield from self._transports[0].call(name, requests, patience_s)
        except Away as away:
            if name == "CheckIn" and not isinstance(away, Busy):
                self._transports.append(self._transports.pop(0))
            raise

    def close(self) -> None:
        """As `Transport` has it."""
        for each in self._transports:
            each.close()


def _grpc(target: str, keys: Keys) -> Transport:
    try:
        from slimfleet.client.gateway.over_grpc import OverGrpc
    except ModuleNotFoundError as error:
        if error.name != "grpc":
            raise
        raise BadInput(
            "gRPC is not installed: pip install 'slimfleet[grpc]', or run with --transport https"
        ) from error
    return OverGrpc(target, keys)


def _https(target: str, keys: Keys) -> Transport:
    from slimfleet.client.gateway.over_https import OverHttps

    return OverHttps(target, keys)


_MAKERS: Mapping[str, Callable[[str, Keys], Transport]] = MappingProxyType({"grpc": _grpc, "https": _https})
