"""gRPC: the device API as a grpc.aio server with mutual TLS. Without reflection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from slimfleet.compression.device_api import MAX_MESSAGE_BYTES, METHODS
from slimfleet.coordinator.gateway.reception import Reception
from slimfleet.coordinator.gateway.refusal import Refused
from slimfleet.coordinator.gateway.settings import GatewaySettings
from slimfleet.coordinator.pki import PkiFolder

__all__ = ["Server", "start_grpc"]

Server: TypeAlias = grpc.aio.Server

STREAMS = 8
"""Calls at a time on one connection."""


async def start_grpc(reception: Reception, pki: PkiFolder, settings: GatewaySettings) -> tuple[Server, int]:
    """Start serving behind the door; the server, and the port on loopback that it listens on."""
    server = grpc.aio.server(options=_options(settings))
    handlers = {name: _served(name, reception) for name in METHODS}
    service = next(iter(METHODS.values())).path.split("/")[1]
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for name in ("", service):
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    credentials = grpc.ssl_server_credentials(
        [(pki.server_key.read_bytes(), pki.server_crt.read_bytes())],
        root_certificates=pki.ca_crt.read_bytes(),
        require_client_auth=True,
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    return server, port


def _options(settings: GatewaySettings) -> list[tuple[str, Any]]:
    """Phones lose their connections without a word: both ends probe, and neither is punished for it."""
    idle_ms = int(1_000 * settings.idle_s)
    return [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES + 1_024),
        ("grpc.max_concurrent_streams", STREAMS),
        ("grpc.max_metadata_size", 8_192),
        ("grpc.keepalive_time_ms", 2 * idle_ms),
        ("grpc.keepalive_timeout_ms", idle_ms),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 3),
        ("grpc.server_handshake_timeout_ms", idle_ms),
        ("grpc.max_connection_idle_ms", 10 * idle_ms),
        ("grpc.max_connection_age_ms", 86_400_000),
        ("grpc.max_connection_age_grace_ms", 600_000),
        ("grpc.so_reuseport", 0),
    ]


class _Wire:
    """A call of gRPC. Raises ConnectionResetError where its connection has been lost, which gRPC calls an error of its
    own."""

    def __init__(self, context: Any) -> None:
        self._context = context

    async def read(self) -> bytes | None:
        with _connected():
            message = await self._context.read()
        return None if message is grpc.aio.EOF else message

    async def write(self, message: bytes) -> None:
        with _connected():
            await self._context.write(message)


@contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except grpc.aio.InternalError as error:
        raise ConnectionResetError("the call has no connection any more") from error


def _served(name: str, reception: Reception) -> Any:
    """A method as gRPC wants it. A call of one message is a stream of one."""

    async def serve(requests: object, context: Any) -> None:
        certificates = context.auth_context().get("x509_pem_cert", ())
        caller = int(context.peer().rpartition(":")[2])
        try:
            await reception.serve(name, certificates[0] if certificates else None, caller, _Wire(context))
        except Refused as refused:
            await context.abort(getattr(grpc.StatusCode, refused.status), f"{refused.reason}: {refused}")

    return grpc.stream_stream_rpc_method_handler(serve)
