"""Output of `slimfleet-device`: tables for people, TOML for files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rich.console import Group
from rich.markup import escape

from slimfleet.client.anatomy import AtWidth, tensors_of_group, whole_tensors
from slimfleet.client.benchmark import Benchmark
from slimfleet.client.figures import Figure
from slimfleet.client.tables import table, titled
from slimfleet.compression import DeviceProfile
from slimfleet.compression.pruning.blueprint import Blueprint

NAME_WIDTH = 46
"""Characters of a group's name that are shown, the last ones: a line holds 80."""

MOST_NAMES = 6
"""Names in a list before the rest is only counted."""


def groups_table(name: str, architecture: Blueprint) -> Group:
    """The channel groups of a model, a line each."""
    found = table("group", numbers=("channels", "least"))
    for group in architecture.groups:
        found.add_row(escape(_ending(group.name)), f"{group.size:,}", f"{group.min_channels:,}")
    return titled(f"What shrinks in the model of {name}", found)


def reach_text(architecture: Blueprint) -> str:
    """The tensors that each group reaches into, a line each."""
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
    found = table(numbers=("width", "channels", "parameters", "MFLOP", "activations kB", "peak MB"))
    for row in rows:
        found.add_row(
            f"{row.width:g}",
            f"{row.channels:,}",
            f"{row.work.parameters:,}",
            _short(row.work.flops_per_example / 1e6),
            _short(row.work.activation_bytes_per_example / 1e3),
            f"{row.peak_bytes / 1e6:,.0f}",
        )
    title = f"Training it ({runtime} runtime, batches of {batch_size}; MFLOP and activations per example)"
    return titled(title, found)


def _short(value: float) -> str:
    """Three digits, never as a power of ten where there are more."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def benchmark_text(benchmark: Benchmark, cores: int) -> str:
    """The result of a benchmark, in two lines."""
    threads = "one thread" if benchmark.threads == 1 else f"{benchmark.threads} threads"
    slowest, fastest = (speed / 1e9 for speed in (benchmark.speeds[0], benchmark.speeds[-1]))
    return (
        f"Trained {benchmark.steps:,} steps in {benchmark.seconds:.1f} s on {threads} ({cores} cores here), "
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
    "runtime_base_bytes": (1e6, "MB"),
    "runtime_fixed_bytes": (1e6, "MB"),
}
"""Units in which people read the fields of a profile, and what one of each is in the unit of its name."""


def figures_table(figures: Mapping[str, Figure]) -> Group:
    """A device profile, field by field, with the origin of each."""
    found = table("field", "value", "origin")
    for name, figure in figures.items():
        origin = "table of devices" if figure.origin == "table" else figure.origin
        found.add_row(name, escape(_value(name, figure)), origin)
    return titled("Device profile", found)


def _value(name: str, figure: Figure) -> str:
    if figure.origin == "unknown":
        return f"give --{name.replace('_', '-')} or --like"
    if name == "battery_j" and figure.value is None:
        return "none: on mains"
    if figure.value is None:
        return "that of the runtime"
    if isinstance(figure.value, bool):
        return "yes" if figure.value else "no"
    scale, unit = _UNITS.get(name, (None, ""))
    return str(figure.value) if scale is None else f"{figure.value / scale:.4g} {unit}"


def toml_of(profile: DeviceProfile) -> str:
    """A profile as lines of TOML; what is None is left out."""
    values = {name: value for name, value in asdict(profile).items() if value is not None}
    return "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items())
