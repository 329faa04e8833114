"""Tables of `slimfleet-device` that need no torch: batteries, meters, the condition of a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from slimfleet.client.meters import Reading, net_of_idle
from slimfleet.client.meters.battery import BatteryStatus
from slimfleet.compression import Condition

__all__ = ["batteries_table", "condition_table", "meters_table", "number", "table", "titled"]


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
