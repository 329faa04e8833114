"""Arguments that several commands of `slimfleet-device` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slimfleet.client.meters import METERS
from slimfleet.compression.checked_task import CheckedTask
from slimfleet.compression.edge.command_line import keyword_arguments
from slimfleet.compression.edge.task_loader import BUILT_IN, existing_folders, load_task, make_importable
from slimfleet.compression.profiles import load_profiles

__all__ = [
    "AsJson",
    "Batch",
    "Battery",
    "DeviceClass",
    "IdleWatt",
    "Like",
    "MeterName",
    "Name",
    "TaskName",
    "TrainWatt",
    "task_of",
]


def _devices_from(incomplete: str) -> list[str]:
    """Completions of a device's name in the table."""
    return [row.name for row in load_profiles() if row.name.startswith(incomplete)]


TaskName = Annotated[
    str,
    typer.Argument(metavar="TASK", help=f"{', '.join(BUILT_IN)}, or module:object for your own task."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Batch = Annotated[int, typer.Option(metavar="N", min=1, help="Examples in one step of training.")]
MeterName = Annotated[str, typer.Option(help=f"Where joules come from: {', '.join(METERS)}.")]
Like = Annotated[
    str | None,
    typer.Option(
        metavar="DEVICE",
        help="Take what is neither measured nor given from this device of slimfleet's table, "
        "for example pi_zero_2w.",
        autocompletion=_devices_from,
    ),
]
Name = Annotated[str | None, typer.Option(help="Name of the device.", show_default="this computer's")]
DeviceClass = Annotated[
    str | None,
    typer.Option(
        help="Shared by similar devices: budgets and calibration go by class.", show_default="device"
    ),
]
IdleWatt = Annotated[
    float | None,
    typer.Option("--idle-w", metavar="W", min=0, help="Power at rest, where no meter reads it."),
]
TrainWatt = Annotated[
    float | None, typer.Option("--train-w", metavar="W", min=0, help="Power of training, above idle.")
]
Battery = Annotated[float | None, typer.Option(metavar="J", min=0, help="Capacity.", show_default="on mains")]


def task_of(name: str, options: list[str] | None, folders: list[Path] | None, shares: int = 1) -> CheckedTask:
    """The task that a person names, its data cut into so many shares unless the options say otherwise."""
    from slimfleet.client.tasks import TASKS

    make_importable(existing_folders(folders or [Path()]))
    return load_task(name, TASKS, partitions=shares, seed=0, options=keyword_arguments(options))
