"""Output of `slimfleet-device`: tables for people, TOML for files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rich.markup import escape
from rich.table import Table

from slimfleet.client.anatomy import AtWidth, whole_tensors
from slimfleet.client.benchmark import Benchmark
from slimfleet.client.figures import Figure
from slimfleet.client.meters import Reading
from slimfleet.client.meters.battery import BatteryStatus
from slimfleet.compression import DeviceProfile
from slimfleet.compression.pruning.blueprint import Blueprint


def groups_table(name: str, architecture: Blueprint) -> Table:
    """The channel groups of a model, and the tensors that each reaches into."""
    table = _table(f"What shrinks in the model of {name}", "group", "tensors", numbers=("channels", "least"))
    for group in architecture.groups:
        tensors = ", ".join(dict.fromkeys(member.tensor for member in group.members))
        table.add_row(escape(group.name), escape(tensors), str(group.size), str(group.min_channels))
    return table


def whole_text(architecture: Blueprint) -> str:
    """The tensors that do not shrink."""
    whole = ", ".join(whole_tensors(architecture)) or "nothing"
    advice = "" if architecture.groups else "\nNo channel can be removed: every width costs the same."
    return f"Whole at every width: {whole}{advice}\n"


def widths_table(rows: Sequence[AtWidth], runtime: str, batch_size: int) -> Table:
    """Channels, parameters, work and memory at each width."""
    table = _table(
        f"Training it ({runtime} runtime, batches of {batch_size})",
        numbers=(
            "width",
            "channels",
            "parameters",
            "MFLOP/example",
            "activation kB/example",
            "peak memory MB",
        ),
    )
    for row in rows:
        table.add_row(
            f"{row.width:g}",
            f"{row.channels:,}",
            f"{row.work.parameters:,}",
            f"{row.work.flops_per_example / 1e6:.3g}",
            f"{row.work.activation_bytes_per_example / 1e3:.3g}",
            f"{row.peak_bytes / 1e6:.0f}",
        )
    return table


def benchmark_text(benchmark: Benchmark, cores: int) -> str:
    """The result of a benchmark, in two lines."""
    slowest, fastest = (speed / 1e9 for speed in (benchmark.speeds[0], benchmark.speeds[-1]))
    return (
        f"Trained {benchmark.steps:,} steps in {benchmark.seconds:.1f} s on one thread ({cores} cores here), "
        f"peak memory {benchmark.peak_bytes / 1e6:.0f} MB.\n"
        f"Speed: {benchmark.flops_per_s / 1e9:.3g} GFLOP/s, the median of {len(benchmark.speeds)} stretches "
        f"from {slowest:.3g} to {fastest:.3g} GFLOP/s."
    )


_UNITS: Mapping[str, tuple[float, str]] = {
    "ram_bytes": (1e9, "GB"),
    "train_flops_per_s": (1e9, "GFLOP/s"),
    "idle_w": (1, "W"),
    "train_w": (1, "W above idle"),
    "uplink_bytes_per_s": (1e6, "MB/s"),
    "downlink_bytes_per_s": (1e6, "MB/s"),
    "radio_j_per_byte_up": (1e-6, "J/MB"),
    "radio_j_per_byte_down": (1e-6, "J/MB"),
    "radio_j_per_burst": (1, "J"),
    "battery_j": (1e3, "kJ"),
}
"""Units in which people read the fields of a profile, and what one of each is in the unit of its name."""


def figures_table(figures: Mapping[str, Figure]) -> Table:
    """A device profile, field by field, with the origin of each."""
    table = _table("Device profile", "field", "value", "origin")
    for name, figure in figures.items():
        origin = "table of devices" if figure.origin == "table" else figure.origin
        table.add_row(name, escape(_value(name, figure)), origin)
    return table


def _value(name: str, figure: Figure) -> str:
    if figure.origin == "unknown":
        return f"give --{name.replace('_', '-')} or --like"
    if name == "battery_j" and figure.value is None:
        return "none: on mains"
    if isinstance(figure.value, bool):
        return "yes" if figure.value else "no"
    scale, unit = _UNITS.get(name, (None, ""))
    return str(figure.value) if scale is None else f"{figure.value / scale:.4g} {unit}"


def batteries_table(batteries: Sequence[BatteryStatus]) -> Table:
    """The batteries that the kernel shows."""
    table = _table("Batteries", "name", "state", numbers=("power W", "stored J"))
    for battery in batteries:
        state = "discharging" if battery.discharging else "charging, full or unknown"
        table.add_row(escape(battery.name), state, _number(battery.power_w), _number(battery.stored_j))
    if not batteries:
        table.add_row("none here", "", "", "")
    return table


def meters_table(readings: Mapping[str, Reading | None]) -> Table:
    """The reading of each meter, or that it had none."""
    table = _table("Meters", "meter", "reading", numbers=("joules", "seconds", "mean W", "samples"))
    for name, reading in readings.items():
        if reading is None:
            table.add_row(name, "none", "", "", "", "")
        else:
            table.add_row(
                name,
                reading.source,
                _number(reading.energy_j),
                _number(reading.duration_s),
                _number(reading.mean_w),
                str(reading.samples),
            )
    return table


def toml_of(profile: DeviceProfile) -> str:
    """A profile as lines of TOML; what is None is left out."""
    values = {name: value for name, value in asdict(profile).items() if value is not None}
    return "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items())


def _table(title: str, *words: str, numbers: Sequence[str] = ()) -> Table:
    table = Table(title=escape(title), title_justify="left")
    for word in words:
        table.add_column(word)
    for number in numbers:
        table.add_column(number, justify="right")
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
