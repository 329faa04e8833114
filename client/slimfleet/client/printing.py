"""Output of `slimfleet-device`: tables for people, TOML for files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from slimfleet.client.figures import Figure
from slimfleet.client.meters import Reading
from slimfleet.client.meters.battery import BatteryStatus
from slimfleet.compression import Condition, DeviceProfile

if TYPE_CHECKING:  # they load torch, which meters and policies do without
    from slimfleet.client.anatomy import AtWidth
    from slimfleet.client.benchmark import Benchmark
    from slimfleet.compression.pruning.blueprint import Blueprint

NAME_WIDTH = 46
"""Characters of a group's name that are shown, the last ones: a line holds 80."""

MOST_NAMES = 6
"""Names in a list before the rest is only counted."""


def groups_table(name: str, architecture: Blueprint) -> Group:
    """The channel groups of a model, a line each."""
    table = _table("group", numbers=("channels", "least"))
    for group in architecture.groups:
        table.add_row(escape(_ending(group.name)), f"{group.size:,}", f"{group.min_channels:,}")
    return _titled(f"What shrinks in the model of {name}", table)


def reach_text(architecture: Blueprint) -> str:
    """The tensors that each group reaches into, a line each."""
    from slimfleet.client.anatomy import tensors_of_group

    lines = [
        line
        for group in architecture.groups
        for line in (f"{group.name} reaches into", *(f"  {tensor}" for tensor in tensors_of_group(group)))
    ]
    return "\n".join(lines) + "\n"


def _ending(name: str) -> str:
    """A name, or the end of a long one, which tells layers apart."""
    return name if len(name) <= NAME_WIDTH else f"…{name[1 - NAME_WIDTH :]}"


def whole_text(architecture: Blueprint, verbose: bool = False) -> str:
    """The tensors that do not shrink, and why; with `verbose` all of them."""
    from slimfleet.client.anatomy import whole_tensors

    most = None if verbose else MOST_NAMES
    lines = [f"Whole at every width: {_listed(whole_tensors(architecture), most)}"]
    reasons: dict[str, list[str]] = {}
    for left in architecture.whole:
        reasons.setdefault(left.reason, []).append(left.name or "the model itself")
    lines += [f"  channels of {_listed(names, most)}: {reason}" for reason, names in reasons.items()]
    if not architecture.groups:
        lines.append("No channel can be removed: every width costs the same.")
    return "\n".join(lines) + "\n"


def _listed(names: Sequence[str], most: int | None) -> str:
    shown = ", ".join(names[:most]) or "nothing"
    return shown if most is None or len(names) <= most else f"{shown} and {len(names) - most} more"


def widths_table(rows: Sequence[AtWidth], runtime: str, batch_size: int) -> Group:
    """Channels, parameters, work and memory at each width."""
    table = _table(numbers=("width", "channels", "parameters", "MFLOP", "activations kB", "peak MB"))
    for row in rows:
        table.add_row(
            f"{row.width:g}",
            f"{row.channels:,}",
            f"{row.work.parameters:,}",
            _short(row.work.flops_per_example / 1e6),
            _short(row.work.activation_bytes_per_example / 1e3),
            f"{row.peak_bytes / 1e6:,.0f}",
        )
    title = f"Training it ({runtime} runtime, batches of {batch_size}; MFLOP and activations per example)"
    return _titled(title, table)


def _short(value: float) -> str:
    """Three digits, never as a power of ten where there are more."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


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


def figures_table(figures: Mapping[str, Figure]) -> Group:
    """A device profile, field by field, with the origin of each."""
    table = _table("field", "value", "origin")
    for name, figure in figures.items():
        origin = "table of devices" if figure.origin == "table" else figure.origin
        table.add_row(name, escape(_value(name, figure)), origin)
    return _titled("Device profile", table)


def _value(name: str, figure: Figure) -> str:
    if figure.origin == "unknown":
        return f"give --{name.replace('_', '-')} or --like"
    if name == "battery_j" and figure.value is None:
        return "none: on mains"
    if isinstance(figure.value, bool):
        return "yes" if figure.value else "no"
    scale, unit = _UNITS.get(name, (None, ""))
    return str(figure.value) if scale is None else f"{figure.value / scale:.4g} {unit}"


def batteries_table(batteries: Sequence[BatteryStatus]) -> Group:
    """The batteries that the kernel shows."""
    table = _table("name", "state", numbers=("power W", "stored J"))
    for battery in batteries:
        state = "discharging" if battery.discharging else "charging, full or unknown"
        table.add_row(escape(battery.name), state, _number(battery.power_w), _number(battery.stored_j))
    if not batteries:
        table.add_row("none here", "", "", "")
    return _titled("Batteries", table)


def condition_table(condition: Condition) -> Group:
    """A device's condition, with what is unknown called so."""
    table = _table("what", "now")
    yes_no = {True: "yes", False: "no", None: "unknown"}
    battery, warmth, memory = condition.battery, condition.temperature_c, condition.free_memory_bytes
    table.add_row("battery", "unknown" if battery is None else f"{100 * battery:.3g}%")
    table.add_row("charging", yes_no[condition.charging])
    table.add_row("metered link", yes_no[condition.metered])
    table.add_row("temperature", "unknown" if warmth is None else f"{warmth:.3g} °C")
    table.add_row("free memory", "unknown" if memory is None else f"{memory:,} bytes")
    return _titled("Condition", table)


def meters_table(readings: Mapping[str, Reading | None]) -> Group:
    """The reading of each meter, or that it had none."""
    table = _table("meter", "reading", numbers=("joules", "seconds", "mean W", "samples"))
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
    return _titled("Meters", table)


def toml_of(profile: DeviceProfile) -> str:
    """A profile as lines of TOML; what is None is left out."""
    values = {name: value for name, value in asdict(profile).items() if value is not None}
    return "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items())


def _table(*words: str, numbers: Sequence[str] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="")
    for word in words:
        table.add_column(word, overflow="fold")
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True)
    return table


def _titled(title: str, table: Table) -> Group:
    """A table below its title, which may be wider."""
    return Group(Text(title, style="bold"), table)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
