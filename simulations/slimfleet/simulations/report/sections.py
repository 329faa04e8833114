"""Sections of the report page, from its headline to where its numbers come from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from slimfleet.simulations import units
from slimfleet.simulations.outcome import DeviceRow, RunRecord
from slimfleet.simulations.report import panels
from slimfleet.simulations.report.markup import escape, figure, table, tile
from slimfleet.simulations.words import compared, explain, tally

SOURCES: Mapping[str, str] = {
    "simulated": (
        "Joules are simulated: each virtual device is charged by a model of its processor and radio, drawn "
        "with noise from the table of device profiles. No power was measured."
    ),
    "estimated": "Joules are estimated from time and nominal power; no power was measured.",
    "measured": "Joules were measured on the devices.",
}


def headline(record: RunRecord, summary: Mapping[str, Any]) -> str:
    """Title, what the run was, and the big numbers."""
    what = (
        f"{units.count(record.devices)} devices, {units.count(summary['rounds'])} rounds, "
        f"{units.count(summary['participations'])} updates used; "
        f"{units.duration(summary['virtual_time_s'])} of virtual time in "
        f"{units.duration(summary['wall_time_s'])} on this machine"
    )
    violations = summary["budget_violations"]
    tiles = [
        tile(units.percent(summary["accuracy_last5"]), "accuracy, mean of the last five rounds"),
        _traffic(summary, "uplink", "sent by devices"),
        _traffic(summary, "downlink", "sent to devices"),
        tile(
            units.energy(summary["energy_j"]),
            f"{summary['energy_source']}: {units.energy(summary['compute_j'])} computing, "
            f"{units.energy(summary['radio_j'])} radio",
        ),
        tile(
            units.count(violations),
            "budgets broken, judged by what was spent",
            "bad" if violations else "good",
        ),
    ]
    return (
        f'<h1>{escape(record.scenario)}</h1><p class="lead">{escape(what)}</p>'
        f'<div class="tiles">{"".join(tiles)}</div>'
    )


def savings(summary: Mapping[str, Any]) -> str:
    """The cost of reaching the accuracy of plain federated averaging; empty without a baseline."""
    if "baseline" not in summary:
        return ""
    ours, ratios = summary["to_target"], summary["savings"]
    target = units.percent(ours["accuracy"])
    if ours["rounds"] is None:
        return (
            f"<h2>Against plain federated averaging</h2><p>Its accuracy of {escape(target)} was not reached "
            f"in {summary['rounds']} rounds: there is no cost to compare.</p>"
        )
    tiles = [
        _ratio_tile(ratios["uplink_bytes"], "sent by devices"),
        _ratio_tile(ratios["downlink_bytes"], "sent to devices"),
        _ratio_tile(ratios["energy_j"], f"energy ({summary['energy_source']})"),
    ]
    return (
        f"<h2>The cost of reaching {escape(target)}</h2>"
        '<p class="lead">The final accuracy of plain federated averaging in float32, on the same devices, '
        "data and seed. Both runs count up to the first round whose mean of five reaches it.</p>"
        f'<div class="savings">{"".join(tiles)}</div>'
        + table(("", "slimfleet", "FedAvg float32", "less by"), compared(summary))
    )


def curves(record: RunRecord, baseline: RunRecord | None) -> str:
    """Accuracy by bytes and by joules, and joules by round."""
    faint = "Faint: the global model of each round; bold: mean of five rounds."
    source = record.energy_source
    predicted = "Predicted by the planner for the devices that reported; spent includes those that vanished."
    return (
        "<h2>What accuracy cost</h2>"
        '<div class="pair">'
        + figure("Accuracy by bytes sent", panels.uplink_panel(record, baseline), faint)
        + figure(f"Accuracy by joules spent ({source})", panels.joules_panel(record, baseline), faint)
        + "</div>"
        + figure(f"Joules by round ({source})", panels.energy_panel(record), predicted, "wide")
    )


def devices(record: RunRecord) -> str:
    """What each device class did, and how wide it trained."""
    groups: dict[str, list[DeviceRow]] = defaultdict(list)
    for device in record.device_rows:
        groups[device.device_class].append(device)
    heads = (
        "class", "devices", "took part", "updates used", "joules each", "bytes sent each", "mean width",
        "battery left", "budgets broken",
    )  # fmt: skip
    return (
        "<h2>What each device class did</h2>"
        + figure(
            "Model width by device class",
            panels.widths_panel(record),
            "A device that cannot train the whole model trains a narrower one, or none if no plan fits.",
            "wide",
        )
        + table(heads, [_class_row(name, groups[name]) for name in sorted(groups)])
        + '<p class="note">Joules and bytes are means over updates used.</p>'
    )


def left_out(record: RunRecord) -> str:
    """Which devices were skipped, rejected or lost, how often, and why; and which budgets were broken."""
    rows = [
        (what, reason, explain(reason), units.count(times))
        for what, reason, times in tally(record.skipped, record.rejected, record.failed)
    ]
    rows += [
        ("budget broken", reason, "spent more than the limit", units.count(times))
        for reason, times in sorted(record.violations.items())
    ]
    title = "<h2>Devices that were left out, and why</h2>"
    if not rows:
        return f"{title}<p>None: every device that was selected sent an update that was used.</p>"
    return title + table(("what", "reason", "meaning", "times"), rows, words=(1, 2))


def provenance(record: RunRecord, scenario_toml: str, versions: Mapping[str, str]) -> str:
    """Where the numbers come from, and how to reproduce them."""
    rows = [
        ("scenario", record.scenario),
        ("seed", str(record.seed)),
        ("backend", record.backend),
        ("energy", record.energy_source),
        ("predicted update sizes off by", units.percent(record.rows[-1].size_error if record.rows else None)),
        *sorted(versions.items()),
    ]
    return (
        "<h2>Where these numbers come from</h2>"
        f"<p>{escape(SOURCES[record.energy_source])} Bytes are counted on the encoded messages themselves. "
        "The same scenario and seed give the same model, byte for byte.</p>"
        + table(("made with", ""), rows, words=(1,))
        + '<details class="note" style="margin-top:1.25rem"><summary>The scenario as it was run</summary>'
        f'<pre class="card">{escape(scenario_toml)}</pre></details>'
    )


def _traffic(summary: Mapping[str, Any], direction: str, words: str) -> str:
    spent, plain = summary[f"{direction}_bytes"], summary[f"{direction}_bytes_float32"]
    less = f"; {units.times(plain / spent)} less than float32" if spent else ""
    return tile(units.data(spent), words + less)


def _ratio_tile(ratio: float | None, words: str) -> str:
    if ratio is None:
        return tile(units.UNKNOWN, words)
    return (
        tile(units.times(ratio), f"less {words}")
        if ratio >= 1
        else tile(units.times(1 / ratio), f"more {words}")
    )


def _class_row(name: str, group: Sequence[DeviceRow]) -> tuple[str, ...]:
    updates = sum(device.participations for device in group)
    widths = [device.mean_width for device in group if device.mean_width is not None]
    batteries = [device.battery_left for device in group if device.battery_left is not None]
    return (
        name,
        units.count(len(group)),
        units.count(sum(device.participations > 0 for device in group)),
        units.count(updates),
        units.energy(sum(device.energy_j for device in group) / updates if updates else None),
        units.data(sum(device.uplink_bytes for device in group) / updates if updates else None),
        f"{fmean(widths):.2f}" if widths else units.UNKNOWN,
        units.percent(fmean(batteries)) if batteries else "mains",
        units.count(sum(device.violations for device in group)),
    )
