"""Beside a SuperLink: a gateway whose devices take part in the same federation as the SuperNodes.

Its modules load gRPC, and are imported where a federation has a gateway.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from slimfleet.compression import BadInput
from slimfleet.compression.edge.checked import checked
from slimfleet.compression.edge.input_files import read_toml
from slimfleet.coordinator.observing.events import Observer
from slimfleet.coordinator.settings import CoordinatorSettings, settings_of
from slimfleet.coordinator.transport.link import Link, Union

if TYPE_CHECKING:
    from slimfleet.coordinator.gateway import GatewaySettings

__all__ = ["joined", "read_with_gateway"]

SAID_ELSEWHERE = {"out": "server.out", "metrics_port": "server.metrics-port"}
"""Keys of `[gateway]` for which a Flower app has others."""


def read_with_gateway(path: Path) -> tuple[CoordinatorSettings, GatewaySettings | None]:
    """The settings in a TOML file, and those of its table `[gateway]` where there is one.

    Raises BadInput, in one line that names the file, the key and what is right.
    """
    source = f"the settings {path}"
    tables = read_toml(path, source)
    if "gateway" not in tables:
        return settings_of(tables, source), None
    from slimfleet.coordinator.gateway import GatewaySettings

    table = tables.pop("gateway")
    gateway = checked(GatewaySettings, table, source, "gateway")
    for key, instead in SAID_ELSEWHERE.items():
        if key in table:
            raise BadInput(
                f"{source}: gateway.{key}: beside a SuperLink, {instead} of the run-config says that"
            )
    return settings_of(tables, source, others={"gateway": asdict(gateway)}), gateway


@contextmanager
def joined(
    nodes: Link, gateway: GatewaySettings | None, beside: Path, observers: Sequence[Observer] = ()
) -> Iterator[Link]:
    """SuperNodes and the devices of a gateway as one link; without a gateway, the SuperNodes alone.

    `beside` is the folder that `gateway.pki` starts from; `observers` are told of what the gateway refuses. Raises
    BadInput where the gateway cannot be opened.
    """
    if gateway is None:
        yield nodes
        return
    from slimfleet.coordinator.gateway import opened

    with opened(gateway, beside, observers) as at_work:
        yield Union([nodes, at_work.link])
