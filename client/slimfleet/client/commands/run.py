"""Command `run`: this machine as a device of a federation, for as long as it is up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slimfleet.client.gateway.calling import TransportName
from slimfleet.compression.edge.command_line import ImportFrom, TaskArguments, keyword_arguments
from slimfleet.compression.edge.task_loader import existing_folders
from slimfleet.compression.files import locked, naming


def run(
    task: Annotated[str, typer.Argument(metavar="TASK", help="What is learned, as for inspect.")],
    gateway: Annotated[str, typer.Option(metavar="HOST:PORT", help="Gateway of the coordinator.")],
    keys: Annotated[
        Path, typer.Option(help="Folder with ca.crt, device.crt and device.key, as pki makes it.")
    ],
    transport: Annotated[
        TransportName,
        typer.Option(metavar="HOW", help="grpc, https, or auto: the one that gets through."),
    ] = "auto",
    profile: Annotated[
        Path, typer.Option(help="Profile of this machine, as profile --json writes it.")
    ] = Path("device.json"),
    state: Annotated[Path, typer.Option(help="Folder of what lasts from one round to the next.")] = Path(
        "slimfleet-state"
    ),
    partition_id: Annotated[
        int, typer.Option(metavar="N", min=0, help="Number of this device's share of the task's data.")
    ] = 0,
    num_partitions: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Shares of the data.", show_default="10")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="File that says when this machine works (docs/device-policy.md).")
    ] = None,
    metered: Annotated[
        bool | None,
        typer.Option(
            "--metered/--unmetered", help="Whether the bytes of its link cost money.", show_default="unknown"
        ),
    ] = None,
    meter: Annotated[str, typer.Option(help="Where joules come from, as for profile.")] = "power-supply",
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Threads to train on.", show_default="one a core")
    ] = None,
    option: TaskArguments = None,
    import_from: ImportFrom = None,
) -> None:
    """Take part in a federation: ask its gateway for work, do it, and stay.

    One process that comes back after every cut, and goes on after a restart.
    Its certificate says who it is; its policy, when it works at all.

    For example:
      slimfleet-device profile digits --idle-w 2 --train-w 3 --json > device.json
      slimfleet-device run digits --gateway 192.0.2.7:8443 --keys pi-1
    """
    from slimfleet.client.gateway.described import Described, resident
    from slimfleet.client.gateway.introducing import introduction

    node = {
        "partition_id": partition_id,
        "num_partitions": num_partitions,
        "profile": str(profile.absolute()),
        "state": str(state.absolute()),
        "meter": meter,
        "threads": threads,
        "policy": None if policy is None else str(policy.absolute()),
        "metered": metered,
    }
    described = Described(
        node={key: value for key, value in node.items() if value is not None},
        task=task,
        options=keyword_arguments(option),
        import_from=existing_folders(import_from or [Path()]),
        gateway=gateway,
        keys=str(keys.absolute()),
        transport=transport,
    )
    described.policy()
    described.connection()
    with naming(state):
        state.mkdir(parents=True, exist_ok=True)
    with locked(state):
        resident(described, introduction(described)).stay()
