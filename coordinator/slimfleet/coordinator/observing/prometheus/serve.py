"""Metrics server: HTTP, for Prometheus to scrape."""

from __future__ import annotations

from types import TracebackType

from prometheus_client import CollectorRegistry, start_http_server

from slimfleet.compression.errors import BadInput


class MetricsServer:
    """`http://host:port/metrics`, served from its own thread until `close`, or the end of a `with` block.

    `port` 0 takes a free one; read it from `port`. Metrics reveal a fleet, so the default listens on this machine
    only. Raises BadInput when the address cannot be listened on.
    """

    def __init__(self, registry: CollectorRegistry, port: int, host: str = "127.0.0.1") -> None:
        try:
            self._server, self._thread = start_http_server(port, addr=host, registry=registry)
        except (OSError, OverflowError) as error:
            raise BadInput(
                f"cannot serve metrics on {host}:{port}: {error}; choose another port, or 0 for a free one"
            ) from error
        self.host = host
        self.port: int = self._server.server_port

    @property
    def url(self) -> str:
        """Where the metrics are."""
        return f"http://{self.host}:{self.port}/metrics"

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
