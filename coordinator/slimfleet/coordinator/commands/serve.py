"""Command `serve`: a federation whose devices come through the gateway."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from slimfleet.compression.edge.command_line import interruptible


def serve(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The federation, a TOML file (docs/settings.md).")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results.", show_default="gateway.out of the file")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, help="Port to listen on.", show_default="gateway.port of the file"),
    ] = None,
) -> None:
    """Run a federation: devices connect over gRPC with the certificates that pki made, and train one model.

    The file has the tables of docs/settings.md, \\[task] and \\[gateway] among them.
    Ctrl-C leaves a checkpoint; the same command goes on from it, as it does after a crash or a power cut.

    For example:
      slimfleet-coordinator pki init pki
      slimfleet-coordinator pki server pki 192.0.2.7
      slimfleet-coordinator pki device pki pi-1 pi-2
      slimfleet-coordinator serve federation.toml

    On each device:
      slimfleet-device run digits --gateway 192.0.2.7:8443 --keys pi-1
    """
    with interruptible():
        from slimfleet.coordinator.gateway import read_served
        from slimfleet.coordinator.gateway import serve as serve_file

    served = read_served(file)
    own = served.gateway
    gateway = replace(
        own, out=own.out if out is None else str(out.resolve()), port=own.port if port is None else port
    )
    # What a service manager sends at a shutdown is as good as Ctrl-C.
    signal.signal(signal.SIGTERM, _stop)
    serve_file(replace(served, gateway=gateway))


def _stop(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
