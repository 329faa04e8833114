"""Commands `pki`: the keys and certificates by which a server and its devices know each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slimfleet.compression.edge.command_line import command_app

pki_app = command_app(no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the keys and certificates.")]
Days = Annotated[int, typer.Option(metavar="N", min=1, max=36_500, help="Days until it expires.")]

SERVER = "server"


@pki_app.callback()
def _about() -> None:
    """Make the keys and certificates by which a server and its devices know each other.

    Keep the folder off the server and off the devices, except for what each needs: its ca.key admits devices.

    For example:
      slimfleet-coordinator pki init pki
      slimfleet-coordinator pki server pki fleet.example.org 192.0.2.7
      slimfleet-coordinator pki device pki pi-1 pi-2
    """


@pki_app.command()
def init(
    folder: Folder,
    name: Annotated[str, typer.Option(help="Name of the authority.")] = "slimfleet",
    days: Days = 3_650,
) -> None:
    """Make an authority, and its empty revocation list."""
    from slimfleet.coordinator.pki import PkiFolder

    PkiFolder(folder).init(name, days)
    print(f"{folder / 'ca.crt'} is the authority; anyone with {folder / 'ca.key'} can admit devices")


@pki_app.command()
def server(
    folder: Folder,
    hosts: Annotated[
        list[str], typer.Argument(metavar="HOST...", help="Host names and addresses that devices connect to.")
    ],
    days: Days = 365,
) -> None:
    """Make the key and certificate of the server."""
    from slimfleet.coordinator.pki import PkiFolder

    PkiFolder(folder).add_server(hosts, days)
    print(f"the server needs {folder}: ca.crt, server.crt, server.key, revoked.pem")


@pki_app.command()
def device(
    folder: Folder,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of the devices.")],
    days: Days = 365,
) -> None:
    """Make the keys and certificates of devices, each in a folder to be copied to its device."""
    from slimfleet.coordinator.pki import PkiFolder

    for name in names:
        PkiFolder(folder).add_device(name, days)
        print(f"copy {folder / 'devices' / name} to {name}, and delete device.key here")


@pki_app.command()
def rotate(
    folder: Folder,
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"A device, or {SERVER!r}.")],
    days: Days = 365,
) -> None:
    """Make a new key and certificate for the server or a device.

    A device stays the same device.
    Its old certificate holds until it expires: after a theft, revoke first.
    A server takes up new files when it is started again.
    """
    from slimfleet.coordinator.pki import PkiFolder

    if name == SERVER:
        PkiFolder(folder).rotate_server(days)
    else:
        PkiFolder(folder).rotate_device(name, days)
    print(f"{name} has a new key and certificate")


@pki_app.command()
def revoke(
    folder: Folder,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A device.")],
) -> None:
    """Revoke every certificate of a device; a running gateway refuses it from then on.

    Copy revoked.pem to the server.
    """
    from slimfleet.coordinator.pki import PkiFolder

    count = PkiFolder(folder).revoke(name)
    print(f"{count} certificate{'s' * (count != 1)} of {name} revoked in {folder / 'revoked.pem'}")
