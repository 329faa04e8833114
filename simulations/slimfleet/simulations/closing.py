"""Closing table: what the terminal shows when a run is over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from slimfleet.compression.reporting import units
from slimfleet.coordinator.reporting.outcome import RunRecord
from slimfleet.coordinator.reporting.summary import summarise
from slimfleet.coordinator.reporting.words import (
    alarms,
    best_of,
    compared,
    explain,
    idle_classes,
    phases,
    reached,
    score_of,
    tally,
)


def closing_table(record: RunRecord, baseline: RunRecord | None = None) -> Group:
    """Accuracy, traffic against float32, joules and their source, time; then which devices were left out and why.

    With `baseline`, its numbers stand beside, and below them what both runs needed for its final accuracy, or for lower
    ones where that was not reached.
    """
    summary = summarise(record, baseline)
    parts: list[Table | Text] = [_results(summary)]
    if baseline is not None:
        parts.append(_against_baseline(summary))
    parts.append(_left_out(record))
    if idle := idle_classes(record.device_rows):
        parts.append(Text(f"\nNever took part: {idle}.", style="yellow"))
    for each in filter(None, (record, baseline)):
        if alarm := alarms(each):
            parts.append(Text(f"\n{alarm}", style="bold red"))
    return Group(*parts)


def _results(summary: Mapping[str, Any]) -> Table:
    plain = summary.get("baseline")
    table = _table(f"{summary['scenario']}: {summary['devices']} devices, {summary['rounds']} rounds")
    table.add_column("", no_wrap=True)
    table.add_column("slimfleet", justify="right", style="bold")
    if plain is not None:
        table.add_column("FedAvg float32", justify="right")
    runs = [summary] if plain is None else [summary, plain]

    def row(name: str, show: Any) -> None:
        table.add_row(name, *(show(run) for run in runs))

    row(score_of(summary)[0], lambda run: score_of(run)[1])
    row("best model", best_of)
    for name, direction in (("sent by devices", "uplink"), ("sent to devices", "downlink")):
        row(name, lambda run, key=f"{direction}_bytes": units.data(run[key]))
        row("  as float32", lambda run, key=f"{direction}_bytes": _against(run, key))
    row(f"energy ({summary['energy_source']})", lambda run: units.energy(run["energy_j"]))
    row(
        "  computing / radio",
        lambda run: f"{units.energy(run['compute_j'])} / {units.energy(run['radio_j'])}",
    )
    for name, phase in phases(summary):
        if phase["energy_j"]:
            row(
                f"  {name}",
                lambda run, name=name: units.energy(dict(phases(run)).get(name, {}).get("energy_j")),
            )
    row("virtual time", lambda run: units.duration(run["virtual_time_s"]))
    row("real time", lambda run: units.duration(run["wall_time_s"]))
    row("updates used", lambda run: units.count(run["participations"]))
    row("budgets broken", lambda run: _violations(run["violations"]))
    return table


def _against_baseline(summary: Mapping[str, Any]) -> Table | Text:
    if summary["to_target"]["accuracy"] is None:
        return Text("\nFedAvg's final accuracy is not known: no cost to compare.", style="yellow")
    return _to_target(summary) if summary["to_target"]["rounds"] else _on_the_way(summary)


def _to_target(summary: Mapping[str, Any]) -> Table:
    target = units.percent(summary["to_target"]["accuracy"])
    table = _table(f"The cost of reaching FedAvg's {target} (energy {summary['energy_source']})")
    table.add_column("")
    table.add_column("slimfleet", justify="right", style="bold")
    table.add_column("FedAvg float32", justify="right")
    table.add_column("less by", justify="right", style="bold cyan")
    for row in compared(summary):
        table.add_row(*row)
    return table


def _on_the_way(summary: Mapping[str, Any]) -> Table:
    target = units.percent(summary["to_target"]["accuracy"])
    table = _table(f"Times less than FedAvg, whose final {target} was not reached")
    for heading in ("accuracy", "rounds, FedAvg's", "sent by devices", "sent to devices", "energy"):
        table.add_column(heading, justify="right")
    for row in reached(summary):
        table.add_row(*row)
    return table


def _left_out(record: RunRecord) -> Table | Text:
    rows = tally(record.skipped, record.rejected, record.failed)
    if not rows:
        return Text("\nNo device was skipped, rejected or lost.", style="dim")
    table = _table("Devices that were left out, and why")
    table.add_column("")
    table.add_column("times", justify="right", style="bold")
    table.add_column("reason")
    table.add_column("", style="dim")
    for what, reason, times in rows:
        table.add_row(what, units.count(times), Text(reason), explain(reason))
    return table


def _table(title: str) -> Table:
    return Table(
        title=Text(f"\n{title}"),
        title_style="bold",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        header_style="dim",
    )


def _against(run: Mapping[str, Any], key: str) -> str:
    spent, plain = run[key], run[f"{key}_float32"]
    less = f" ({units.times(plain / spent)})" if spent else ""
    return units.data(plain) + less


def _violations(violations: Mapping[str, int]) -> str:
    if not violations:
        return "0"
    named = ", ".join(f"{name} {times}" for name, times in sorted(violations.items()))
    return f"{sum(violations.values())} ({named})"
