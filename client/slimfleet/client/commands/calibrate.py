"""Command `slimfleet-device calibrate`: a device measures itself, and writes the profile that it registers with."""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimfleet.client.commands.arguments import (
    Batch,
    Battery,
    DeviceClass,
    IdleWatt,
    Like,
    MeterName,
    Name,
    TaskName,
    TrainWatt,
)
from slimfleet.client.figures import cores, profile_figures, profile_like, profile_of, ram_bytes
from slimfleet.client.gateway.calling import TransportName
from slimfleet.client.governor.memory import MEMORY_RESERVE_BYTES, free_memory_bytes
from slimfleet.client.meters import build_meter
from slimfleet.compression import BadInput, DeviceProfile
from slimfleet.compression.edge.command_line import (
    ImportFrom,
    Quiet,
    TaskArguments,
    interruptible,
    json_text,
    keyword_arguments,
)
from slimfleet.compression.edge.output_files import refuse_folder
from slimfleet.compression.edge.task_loader import existing_folders
from slimfleet.compression.edge.terminal import Told, progress
from slimfleet.compression.files import write_atomically

if TYPE_CHECKING:
    from slimfleet.client.calibration.memory import MemoryFit
    from slimfleet.client.calibration.point import Point
    from slimfleet.client.calibration.speed import Speed

__all__ = ["calibrate"]

SHARES = 10
"""Shares that a task's data are cut into, as on a deployed device."""

ROOM_SHARE = 0.6
"""Of what is predicted to be left for activations, what the rounds that are measured may take: the prediction is that
of another machine."""


def calibrate(
    task: TaskName = "digits",
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The profile, for profile= of the node-config.")
    ] = Path("profile.json"),
    seconds: Annotated[
        float, typer.Option(metavar="S", min=1, max=600, help="How long to train, and then to rest.")
    ] = 15.0,
    batch_size: Batch = 16,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=1024, help="To train on.", show_default="all cores")
    ] = None,
    meter: MeterName = "power-supply",
    like: Like = None,
    name: Name = None,
    device_class: DeviceClass = None,
    idle_watt: IdleWatt = None,
    train_watt: TrainWatt = None,
    battery_j: Battery = None,
    gateway: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Gateway to measure both links with, up and down.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="Folder with ca.crt, device.crt and device.key, for the gateway.")
    ] = None,
    transport: Annotated[TransportName, typer.Option(help="How it calls the gateway, as for run.")] = "auto",
    download_from: Annotated[
        str | None, typer.Option(metavar="URL", help="A file of 256 KiB or more, to measure the downlink.")
    ] = None,
    upload_to: Annotated[
        str | None, typer.Option(metavar="URL", help="What takes a POST of 1 MiB, to measure the uplink.")
    ] = None,
    quiet: Quiet = False,
    option: TaskArguments = None,
    import_from: ImportFrom = None,
) -> None:
    """Measure this device with a task and write its profile, as it registers with.

    Measured are: the speed of training; power at work and at rest, where the meter reads; the links, where a gateway or
    URLs are given; and R0, c and k of the memory model (docs/cost-model.md), by five rounds in processes of their own.
    What could not be measured is named, with the reason.
    A meter that reads takes joules of the whole device, so let nothing else run.

    For example:
      slimfleet-device calibrate digits --gateway 10.0.0.2:8443 --keys keys
    """
    refuse_folder(out)
    build_meter(meter)  # refused here, where there is none of that name
    link = Link(gateway, keys, transport, download_from, upload_to)
    link.check()
    alike = None if like is None else profile_like(like)
    with interruptible():
        from rich.console import Console

        from slimfleet.client.calibration.speed import measured_speed
        from slimfleet.client.tables import benchmark_text, figures_table

    count = threads or cores()
    given = {
        "name": name,
        "device_class": device_class,
        "idle_w": idle_watt,
        "train_w": train_watt,
        "battery_j": battery_j,
    }
    about = {
        "task": task,
        "options": keyword_arguments(option),
        "import_from": existing_folders(import_from or [Path()]),
    }
    with progress(quiet) as told:
        told("link", 0, 4)
        measured: dict[str, Any] = {
            "name": platform.node() or "device",
            "ram_bytes": ram_bytes(),
        } | link.measured()
        told(f"speed and power, {2 * seconds:.0f} s", 1, 4)
        asked = {"shares": SHARES, "batch_size": batch_size, "seconds": seconds, "threads": count}
        speed = measured_speed(about | asked | {"meter": meter})
        measured |= {"train_flops_per_s": speed.benchmark.flops_per_s, **speed.power}
        # What is neither measured nor given is refused before the minutes that memory takes.
        profile = profile_of(profile_figures(given, measured, alike))
        with _rounds(profile, about, count) as point:
            fit = _memory(point, speed, told)
    runtime = fit.runtime
    measured |= {
        "runtime_base_bytes": runtime.base_bytes,
        "runtime_fixed_bytes": runtime.fixed_bytes,
        "runtime_activation_factor": runtime.activation_factor if fit.factor_measured else None,
    }
    figures = profile_figures(given, measured, alike)
    text = json_text(asdict(profile_of(figures))) + "\n"
    write_atomically(out, text.encode())
    console = Console()
    console.print(benchmark_text(speed.benchmark, cores()), highlight=False)
    console.print(figures_table(figures))
    if not quiet:
        remarks = [*_remarks(fit, meter, speed.power), *link.remarks()]
        console.print("\n".join(remarks), markup=False, highlight=False, soft_wrap=True)
    console.print(f"Written to {out}.", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _rounds(profile: DeviceProfile, about: Mapping[str, Any], threads: int) -> Iterator[Point]:
    """A round of this device to measure, whose state lasts as long as the context."""
    from slimfleet.client.calibration.point import Point

    with tempfile.TemporaryDirectory(prefix="slimfleet-calibrate-") as folder:
        file = Path(folder) / "profile.json"
        file.write_text(json.dumps(asdict(profile)), encoding="utf-8")
        yield Point(
            **about,
            node_config={
                "partition-id": 0,
                "profile": str(file),
                "state": str(Path(folder) / "state"),
                "meter": "none",
                "threads": threads,
            },
            width=1.0,
            batch_size=1,
        )


def _memory(point: Point, speed: Speed, told: Told) -> MemoryFit:
    """The memory model, by rounds that the memory of this device has room for."""
    from slimfleet.client.calibration.memory import fitted, plans_to_measure
    from slimfleet.client.calibration.point import measured_peak
    from slimfleet.compression.cost import RUNTIMES

    usual = RUNTIMES["torch"]
    free = free_memory_bytes(reserve_bytes=MEMORY_RESERVE_BYTES) or 2**30
    room = ROOM_SHARE * (free - usual.base_bytes - usual.fixed_bytes) / usual.activation_factor
    plans = plans_to_measure(speed.activation_bytes, speed.examples, room)
    peaks = []
    for place, (width, batch) in enumerate(plans):
        told(f"memory of width {width:g}, batch {batch}", 2 + place, 2 + len(plans))
        peaks.append(measured_peak(replace(point, width=width, batch_size=batch)))
    return fitted(peaks, usual)


def _remarks(fit: MemoryFit, meter: str, power: Mapping[str, float | None]) -> Iterator[str]:
    """What the figures rest on, and why some are not measured."""
    yield f"Memory: the rounds measured are predicted within {fit.worst_error:.1%}."
    if not fit.factor_measured:
        yield "Not measured: k, since the activations of this task are too small to show it; a larger task does."
    if power:
        yield f"Watts are those of the meter {meter}: name it in the node-config, meter={meter}."
    elif meter != "none":
        yield f"Not measured: watts, since the meter {meter} gave no reading (slimfleet-device meters)."


@dataclass(frozen=True, slots=True)
class Link:
    """What the links are measured with, as the options name it."""

    gateway: str | None
    keys: Path | None
    transport: TransportName
    download_from: str | None
    upload_to: str | None

    def check(self) -> None:
        """Raise BadInput where the options do not fit together."""
        if (self.gateway is None) != (self.keys is None):
            raise BadInput("--gateway and --keys go together: give both or neither")
        if self.gateway is not None and (self.download_from or self.upload_to):
            raise BadInput("--gateway measures both links: give it, or --download-from and --upload-to")

    def measured(self) -> dict[str, float | None]:
        """Figures of the profile; None for what is not measured. Raises BadInput where the other end does not serve."""
        from slimfleet.client.calibration import link

        if self.gateway is not None and self.keys is not None:
            from slimfleet.client.gateway.transports import connection_to

            up, down = link.gateway_bytes_per_s(connection_to(self.gateway, self.keys, self.transport))
            return {"uplink_bytes_per_s": up, "downlink_bytes_per_s": down}
        down_url, up_url = self.download_from, self.upload_to
        return {
            "downlink_bytes_per_s": None if down_url is None else link.downlink_bytes_per_s(down_url),
            "uplink_bytes_per_s": None if up_url is None else link.uplink_bytes_per_s(up_url),
        }

    def remarks(self) -> Iterator[str]:
        """What is not measured."""
        if self.gateway is not None:
            return
        ways = {"downlink": (self.download_from, "download-from"), "uplink": (self.upload_to, "upload-to")}
        for what, (url, option) in ways.items():
            if url is None:
                yield f"Not measured: the {what}, without --gateway or --{option}."
