"""Command `run`: this machine as a device of a federation, for as long as it is up."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slimfleet.client.condition import read_condition
from slimfleet.client.policy import Policy, read_policy, reason_in_words, refusal
from slimfleet.compression.edge.app_config import log_to_stderr
from slimfleet.compression.edge.command_line import ImportFrom, TaskArguments, keyword_arguments
from slimfleet.compression.edge.task_loader import existing_folders, make_importable
from slimfleet.compression.files import locked, naming
from slimfleet.compression.types import Condition

if TYPE_CHECKING:
    from slimfleet.client.device import Device
    from slimfleet.client.gateway.introducing import Described


def run(
    task: Annotated[str, typer.Argument(metavar="TASK", help="What is learned, as for inspect.")],
    gateway: Annotated[str, typer.Option(metavar="HOST:PORT", help="Gateway of the coordinator.")],
    keys: Annotated[
        Path, typer.Option(help="Folder with ca.crt, device.crt and device.key, as pki makes it.")
    ],
    profile: Annotated[
        Path, typer.Option(help="Profile of this machine, as profile --json or calibrate writes it.")
    ],
    state: Annotated[Path, typer.Option(help="Folder of what lasts from one round to the next.")],
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
      slimfleet-device profile digits --json > device.json
      slimfleet-device run digits --gateway 192.0.2.7:8443 --keys pi-1 --profile device.json --state state
    """
    from slimfleet.client.gateway.backoff import Backoff
    from slimfleet.client.gateway.connection import Connection
    from slimfleet.client.gateway.introducing import Described, introduction
    from slimfleet.client.gateway.outbox import Outbox
    from slimfleet.client.gateway.resident import Resident

    log_to_stderr("%(asctime)s %(message)s")
    own = Policy() if policy is None else read_policy(policy)
    connection = Connection(gateway, keys / "ca.crt", keys / "device.crt", keys / "device.key")
    node = {
        "partition_id": partition_id,
        "num_partitions": num_partitions,
        "profile": str(profile),
        "state": str(state),
        "meter": meter,
        "threads": threads,
        "policy": None if policy is None else str(policy),
        "metered": metered,
    }
    described = Described(
        node={key: value for key, value in node.items() if value is not None},
        task=task,
        options=keyword_arguments(option),
        import_from=existing_folders(import_from or [Path()]),
    )
    with naming(state):
        state.mkdir(parents=True, exist_ok=True)
    with locked(state):
        resident = Resident(
            connection,
            introduction(described),
            Outbox(state),
            _ready(described),
            _looking(own, metered),
            Backoff(random.Random()),
            time.sleep,
        )
        resident.stay()


def _ready(described: Described) -> Callable[[], Device]:
    """Makes the device ready for a plan that has just come; the first time, it is built."""
    from slimfleet.client.startup import Began

    moments: list[Began] = []

    @cache
    def built() -> Device:
        from slimfleet.client.deployed import deployed_device

        make_importable(described.import_from)
        return deployed_device(described.node, described.task, described.options, lambda: moments[-1])

    def ready() -> Device:
        moments[:] = [Began.now()]
        return built()

    return ready


def _looking(policy: Policy, metered: bool | None) -> Callable[[], tuple[Condition, str | None]]:
    def look() -> tuple[Condition, str | None]:
        condition = read_condition(metered=metered)
        reason = refusal(policy, condition, datetime.now().time())
        return condition, None if reason is None else reason_in_words(reason, policy, condition)

    return look
