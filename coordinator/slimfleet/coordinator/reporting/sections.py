"""Sections of the report page, from its headline to where its numbers come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from slimfleet.compression.reporting import units
from slimfleet.compression.reporting.markup import details, escape, figure, table, tile
from slimfleet.compression.types import Budget
from slimfleet.coordinator.learning.row import RoundRow
from slimfleet.coordinator.reporting import words
from slimfleet.coordinator.reporting.outcome import DeviceRow, RunRecord
from slimfleet.coordinator.reporting.words import (
    alarms,
    by_class,
    compared,
    explain,
    idle_classes,
    own_budgets,
    reached,
    tally,
    why_untrained,
)

SOURCES: Mapping[str, str] = {
    "simulated": (
        "Joules are simulated: each virtual device is charged by a model of its processor and radio, drawn "
        "with noise from the table of device profiles. No power was measured."
    ),
    "estimated": "Joules are estimated by the devices from time and nominal power.",
    "measured": "Joules were measured on the devices.",
    "unknown": "No device reported joules.",
}
"""Energy source -> what it means; a mixed one names several."""

LIMITS: Mapping[str, Any] = {
    "energy_j": units.energy,
    "power_w": lambda value: f"{value:g} W",
    "memory_bytes": units.data,
    "deadline_s": units.duration,
    "uplink_bytes": lambda value: f"{units.data(value)} up",
    "downlink_bytes": lambda value: f"{units.data(value)} down",
}


def headline(record: RunRecord, summary: Mapping[str, Any]) -> str:
    """Title, what the run was, the big numbers, and what must be known before they are believed."""
    took, real = units.duration(summary["virtual_time_s"]), units.duration(summary["wall_time_s"])
    what = (
        f"{units.count(record.devices)} devices, {units.count(summary['rounds'])} rounds, "
        f"{units.count(summary['participations'])} updates used; "
        + (
            f"{real} of rounds"
            if _is_deployed(record)
            else f"{took} of virtual time in {real} on this machine"
        )
    )
    idle, violations = idle_classes(record.device_rows), summary["budget_violations"]
    # Nothing is good about the budgets of devices that had nothing to spend.
    kind = "bad" if violations else "" if idle or not summary["participations"] else "good"
    tiles = [
        _score(summary),
        _traffic(summary, "uplink", "sent by devices"),
        _traffic(summary, "downlink", "sent to devices"),
        tile(
            units.energy(summary["energy_j"]),
            f"{summary['energy_source']}: {units.energy(summary['compute_j'])} computing, "
            f"{units.energy(summary['radio_j'])} radio",
        ),
        tile(units.count(violations), "budgets broken, judged by what was spent", kind),
    ]
    notices = [alarms(record), why_untrained(record) or (f"Never took part: {idle}." if idle else "")]
    return (
        f'<h1>{escape(record.scenario)}</h1><p class="lead">{escape(what)}</p>'
        + "".join(f'<p class="notice">{escape(notice)}</p>' for notice in notices if notice)
        + f'<div class="tiles">{"".join(tiles)}</div>'
    )


def _score(summary: Mapping[str, Any]) -> str:
    if summary["accuracy"] is None and summary["loss"] is not None:
        return tile(f"{summary['loss']:.4g}", "loss of the last model; the task has no accuracy")
    last5 = units.percent(summary["accuracy_last5"])
    by = ", by what devices hold out" if summary["accuracy_from"] == "devices" else ""
    return tile(
        units.percent(summary["accuracy"]),
        f"accuracy of the last model{by}; mean of the last five rounds {last5}; best model: {words.best_of(summary)}",
    )


def savings(summary: Mapping[str, Any]) -> str:
    """The cost of reaching accuracies, up to that of plain federated averaging; empty without a baseline."""
    if "baseline" not in summary:
        return ""
    ours, ratios = summary["to_target"], summary["savings"]
    if ours["accuracy"] is None:
        return (
            "<h2>Against plain federated averaging</h2>"
            "<p>Its accuracy is not known: there is no cost to compare.</p>"
        )
    target = units.percent(ours["accuracy"])
    if ours["rounds"] is None:
        lead = (
            f"<h2>Against plain federated averaging</h2><p>Its accuracy of {escape(target)} was not reached "
            f"in {summary['rounds']} rounds: there is no cost to compare.</p>"
        )
    else:
        tiles = [
            _ratio_tile(ratios["uplink_bytes"], "sent by devices"),
            _ratio_tile(ratios["downlink_bytes"], "sent to devices"),
            _ratio_tile(ratios["energy_j"], f"energy ({summary['energy_source']})"),
        ]
        lead = (
            f"<h2>The cost of reaching {escape(target)}</h2>"
            '<p class="lead">The final accuracy of plain federated averaging in float32, on the same devices, '
            "data and seed. Both runs count up to the first round whose mean of five reaches it.</p>"
            f'<div class="savings">{"".join(tiles)}</div>'
            + table(("", "slimfleet", "FedAvg float32", "less by"), compared(summary))
        )
    heads = ("accuracy", "rounds", "sent by devices", "sent to devices", "energy")
    return (
        lead
        + "<h3>On the way there</h3>"
        + table(heads, reached(summary))
        + '<p class="note">How many times less slimfleet needed than FedAvg; rounds: slimfleet / FedAvg.</p>'
    )


def curves(record: RunRecord, panels: Mapping[str, str]) -> str:
    """Accuracy and loss by what they cost, and joules by round; `panels` has the plots by name."""
    if not panels:
        return (
            '<h2>What accuracy cost</h2><p class="notice">The plots are missing: matplotlib is not installed. '
            "It comes with the extras coordinator and simulation: pip install 'slimfleet[coordinator]'.</p>"
        )
    source = record.energy_source
    lines = "Bold: the model of each round; thin: mean of five rounds."
    figures = [
        figure("Accuracy by bytes sent", panels["uplink"], f"{lines} Logarithmic."),
        figure("Accuracy by bytes received", panels["downlink"], f"{lines} Logarithmic."),
        figure(f"Accuracy by joules spent ({source})", panels["joules"], lines),
        figure("Accuracy by round", panels["accuracy"], lines),
        figure("Loss by round", panels["loss"], "On the data held out."),
        figure(
            f"Joules by round ({source})",
            panels["energy"],
            "Predicted by the planner for the devices that reported; spent includes those that vanished.",
        ),
    ]
    return f'<h2>What accuracy cost</h2><div class="plots">{"".join(figures)}</div>'


def phases(summary: Mapping[str, Any]) -> str:
    """Seconds and joules by phase of a round; empty where no device told any."""
    rows = [
        (
            name,
            units.energy(phase["energy_j"]),
            units.UNKNOWN if "source" not in phase else f"± {units.energy(phase['uncertainty_j'])}",
            phase.get("source") or units.UNKNOWN,
            units.duration(phase.get("time_s")),
        )
        for name, phase in words.phases(summary)
    ]
    if not rows:
        return ""
    return (
        "<h2>Where the joules went</h2>"
        + table(("phase", "joules", "uncertainty", "source", "device time"), rows, words=(3,))
        + '<p class="note">Above idle, over all devices. Download includes waking the radio; pauses hold the mean '
        "power. The uncertainty leaves out the error of a sensor itself.</p>"
    )


def device_evaluation(summary: Mapping[str, Any]) -> str:
    """Accuracy by class of devices and of answers, and fairness; empty where devices evaluated nothing."""
    found = summary["device_evaluation"]
    if found is None:
        return ""
    heads = ("", "devices", "examples", "accuracy", "loss", "mean device", "worst tenth", "spread")
    groups = {"all": found, **found["by_device_class"]}
    rows = [
        (
            name,
            units.count(group["devices"]),
            units.count(group["examples"]),
            units.percent(group["accuracy"]),
            f"{group['loss']:.4g}",
            *(
                units.percent((group["fairness"] or {}).get(key))
                for key in ("mean", "worst_decile", "spread")
            ),
        )
        for name, group in groups.items()
    ]
    classes = [
        (number, units.count(each["examples"]), units.percent(each["correct"] / each["examples"]))
        for number, each in found["by_class"].items()
    ]
    votes = "The last three columns give each device one vote. " if found["fairness"] else ""
    share = f"At most {units.percent(summary['evaluation_share'])} of a device's joules went into it. "
    return (
        "<h2>What devices made of the model</h2>"
        '<p class="lead">On examples that they hold out and never train on: the last evaluation of each device of the '
        "last five rounds, of the model as it was sent, before the round's training.</p>"
        + table(heads, rows)
        + f'<p class="note">{votes}{share}Devices that train a narrower model do not evaluate.</p>'
        + (
            details("By class of answers", table(("class", "examples", "accuracy"), classes))
            if classes
            else ""
        )
    )


def rounds(rows: Sequence[RoundRow]) -> str:
    """Every round in a table that opens on demand; empty without rounds."""
    heads = (
        "round", "accuracy", "loss", "used", "chosen", "skipped", "rejected", "failed", "bytes up", "bytes down",
        "joules", "time",
    )  # fmt: skip
    cells = [
        (
            str(row.round),
            units.percent(row.accuracy),
            units.UNKNOWN if row.loss is None else f"{row.loss:.4g}",
            *map(units.count, (row.completed, row.selected, row.skipped, row.rejected, row.failed)),
            units.data(row.uplink_bytes),
            units.data(row.downlink_bytes),
            units.energy(row.energy_j),
            units.duration(row.virtual_time_s),
        )
        for row in rows
    ]
    return details("Every round in numbers", table(heads, cells)) if rows else ""


def devices(record: RunRecord, panels: Mapping[str, str]) -> str:
    """What the device classes are, what each did, and how wide it trained."""
    groups = by_class(record.device_rows)
    heads = (
        "class", "devices", "took part", "updates used", "joules each", "bytes sent each", "mean width",
        "battery at start", "battery at end", "budgets broken",
    )  # fmt: skip
    own = own_budgets(record.budgets)
    widths = panels and figure(
        "Model width by device class",
        panels["widths"],
        "A device that cannot train the whole model trains a narrower one. Skipped: no plan fitted its limits, or its "
        "battery was low. Never chosen: other devices came first, or it could not be reached.",
    )
    return (
        "<h2>What each device class did</h2>"
        '<p class="lead">A class holds devices that are alike: they share a budget, and what is learned of one '
        "corrects the predictions for all.</p>"
        + (f'<p class="notice">{escape(_sentence(own))}</p>' if own else "")
        + table(
            ("class", "what it holds", "may spend in a round"),
            [(name, _holds(group), _budget(record.budgets.of(name))) for name, group in groups.items()],
            words=(1, 2),
        )
        + (f'<div class="plots">{widths}</div>' if widths else "")
        + table(heads, [_class_row(name, group) for name, group in groups.items()])
        + '<p class="note">Joules and bytes are means over updates used. Batteries are means over the devices that '
        f"have one; {units.UNKNOWN} is on mains or not known.</p>"
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


def provenance(record: RunRecord, settings_toml: str, versions: Mapping[str, str]) -> str:
    """Where the numbers come from, and how to reproduce them."""
    rows = [
        ("name", record.scenario),
        ("seed", str(record.seed)),
        ("backend", record.backend),
        ("energy", record.energy_source),
        ("predicted update sizes off by", units.percent(record.rows[-1].size_error if record.rows else None)),
        *sorted(versions.items()),
    ]
    sources = " ".join(words for source, words in SOURCES.items() if source in record.energy_source)
    again = "" if _is_deployed(record) else " The same scenario and seed give the same model, byte for byte."
    return (
        "<h2>Where these numbers come from</h2>"
        f"<p>{escape(sources)} Bytes are counted on the encoded messages themselves.{again}</p>"
        + table(("made with", ""), rows, words=(1,))
        + details("The settings of the run", f'<pre class="card">{escape(settings_toml)}</pre>')
    )


def _is_deployed(record: RunRecord) -> bool:
    return record.backend == "deployed"


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


def _holds(group: Sequence[DeviceRow]) -> str:
    names = Counter(device.name for device in group)
    return ", ".join(f"{units.count(times)} {name}" for name, times in sorted(names.items()))


def _budget(budget: Budget) -> str:
    limits = {name: value for name, value in asdict(budget).items() if value is not None}
    return ", ".join(LIMITS[name](value) for name, value in limits.items()) or "no limit"


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _class_row(name: str, group: Sequence[DeviceRow]) -> tuple[str, ...]:
    updates = sum(device.participations for device in group)
    widths = [device.mean_width for device in group if device.mean_width is not None]
    return (
        name,
        units.count(len(group)),
        units.count(sum(device.participations > 0 for device in group)),
        units.count(updates),
        units.energy(sum(device.energy_j for device in group) / updates if updates else None),
        units.data(sum(device.uplink_bytes for device in group) / updates if updates else None),
        f"{fmean(widths):.2f}" if widths else units.UNKNOWN,
        _mean_charge([device.battery_start for device in group]),
        _mean_charge([device.battery_left for device in group]),
        units.count(sum(device.violations for device in group)),
    )


def _mean_charge(charges: Sequence[float | None]) -> str:
    known = [charge for charge in charges if charge is not None]
    return units.percent(fmean(known) if known else None)
