"""Tables of `slimfleet-device` that need no torch: batteries, meters, the condition and the figures of a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from slimfleet.client.figures import Figure
from slimfleet.client.meters import Reading, net_of_idle
from slimfleet.client.meters.battery import BatteryStatus
from slimfleet.compression import Condition

if TYPE_CHECKING:  # it loads torch
    from slimfleet.client.benchmark import Benchmark

__all__ = [
    "batteries_table",
    "benchmark_text",
    "condition_table",
    "figures_table",
    "meters_table",
    "number",
    "table",
    "titled",
]


def batteries_table(batteries: Sequence[BatteryStatus]) -> Group:
    """The batteries that the kernel shows."""
    found = table("name", "state", numbers=("power W", "stored J"))
    for battery in batteries:
        state = "discharging" if battery.discharging else "charging, full or unknown"
        found.add_row(escape(battery.name), state, number(battery.power_w), number(battery.stored_j))
    if not batteries:
        found.add_row("none here", "", "", "")
    return titled("Batteries", found)


def condition_table(condition: Condition) -> Group:
    """A device's condition, with what is unknown called so."""
    found = table("what", "now")
    yes_no = {True: "yes", False: "no", None: "unknown"}
    battery, warmth, memory = condition.battery, condition.temperature_c, condition.free_memory_bytes
    found.add_row("battery", "unknown" if battery is None else f"{100 * battery:.3g}%")
    found.add_row("charging", yes_no[condition.charging])
    found.add_row("metered link", yes_no[condition.metered])
    found.add_row("temperature", "unknown" if warmth is None else f"{warmth:.3g} °C")
    found.add_row("free memory", "unknown" if memory is None else f"{memory:,} bytes")
    return titled("Condition", found)


def meters_table(readings: Mapping[str, Reading | None], idle_w: float | None = None) -> Group:
    """The reading of each meter, or that it had none; net is what is left of the joules above `idle_w`."""
    found = table(
        "meter", "sensor", numbers=("joules", "give or take", "net", "seconds", "mean W", "samples")
    )
    for name, reading in readings.items():
        if reading is None:
            found.add_row(name, "no reading")
            continue
        net = None if idle_w is None else net_of_idle(reading, idle_w).energy_j
        found.add_row(
            name,
            escape(f"{reading.source}: {reading.sensor}"),
            number(reading.energy_j),
            f"{reading.error:.0%}",
            number(net),
            number(reading.duration_s),
            number(reading.mean_w),
            str(reading.samples),
        )
    return titled("Meters", found)


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


def table(*words: str, numbers: Sequence[str] = ()) -> Table:
    """An empty table with columns for words, then for numbers."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="")
    for word in words:
        table.add_column(word, overflow="fold")
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True)
    return table


def titled(title: str, table: Table) -> Group:
    """A table below its title, which may be wider."""
    return Group(Text(title, style="bold"), table)


def number(value: float | None) -> str:
    """Four digits; nothing for None."""
    return "" if value is None else f"{value:.4g}"
