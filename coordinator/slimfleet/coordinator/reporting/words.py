"""Words: what the report page and the terminal both say of a run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from slimfleet.compression.reporting import units
from slimfleet.coordinator.reporting.outcome import DeviceRow, RunRecord
from slimfleet.coordinator.settings import NO_LIMIT, Budgets

__all__ = [
    "alarms",
    "best_of",
    "by_class",
    "compared",
    "explain",
    "idle_classes",
    "own_budgets",
    "phases",
    "reached",
    "tally",
    "why_untrained",
]

_REASONS: Mapping[str, str] = {
    "energy_j": "the smallest plan needs more joules than the budget holds",
    "memory_bytes": "the narrowest model needs more memory than there is",
    "deadline_s": "the smallest plan would not be done by the deadline",
    "uplink_bytes": "the smallest update is larger than the uplink budget",
    "downlink_bytes": "the smallest model is larger than the downlink budget",
    "local_steps": "not one training step fitted the budget",
    "examples": "the device has one example, on which the model cannot train alone",
    "battery": "the battery is below the floor for taking part",
    "policy": "the device had just refused a round by its own policy",
    "battery_low": "the battery is below the device's own floor",
    "battery_unknown": "the device's own policy has a battery floor, and its charge is unknown",
    "not_charging": "the device's own policy asks for external power",
    "charging_unknown": "the device's own policy asks for external power, and whether there is any is unknown",
    "metered": "the device's own policy forbids metered links",
    "metered_unknown": "the device's own policy forbids metered links, and whether its link is one is unknown",
    "too_warm": "the device is warmer than its own policy allows",
    "temperature_unknown": "the device's own policy limits the temperature, which is unknown",
    "memory_low": "less memory is free than the device's own policy asks for",
    "memory_unknown": "the device's own policy asks for free memory, and how much there is is unknown",
    "quiet_hours": "the device's own policy allows no work at this time",
    "reputation": "updates of the device were rejected of late, or never came, so it is asked less",
    "planner": "the planner gave no plan that can be used",
    "dropout": "the device vanished in mid-round",
    "late": "the answer came after a deadline, or after its round was closed",
    "outdated": "the update was of a model too many steps old",
    "too_few": "the round had too few updates and was not applied",
    "timeout": "no answer came in time",
    "worker": "the process that ran the device died",
    "error": "the device raised an error",
    "refused": "the device declined the work",
    "incomplete": "the answer lacked a part",
    "message": "a text was not credible, or was made for a newer version",
    "truncated": "the update's size is not what it declares",
    "oversized": "the update is larger than its model allows",
    "magic": "the bytes are not an update",
    "version": "the update is in an unknown format",
    "header": "a header field is outside its range",
    "checksum": "the bytes were damaged on the way",
    "schema": "the update is for another model",
    "counts": "the update's sizes disagree with its model",
    "grid": "the update has an impossible quantiser",
    "entropy": "the update's coded values are impossible",
    "nonfinite": "the update holds NaN or infinity",
    "stale": "the update is for a model no longer accepted",
    "replay": "the answer was a second one, or not to this round",
    "channels": "the update's channels are not those of its plan",
    "norm": "the update is implausibly large",
}


def explain(reason: str) -> str:
    """What a reason means; empty for a word that is not known."""
    return _REASONS.get(reason, "")


def tally(
    skipped: Mapping[str, int], rejected: Mapping[str, int], failed: Mapping[str, int]
) -> list[tuple[str, str, int]]:
    """(what happened, reason, times), the most frequent of each kind first."""
    kinds = (("skipped", skipped), ("rejected", rejected), ("failed", failed))
    return [
        (kind, reason, times)
        for kind, counts in kinds
        for reason, times in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if times
    ]


_COSTS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("rounds", "rounds", str),
    ("sent by devices", "uplink_bytes", units.data),
    ("sent to devices", "downlink_bytes", units.data),
    ("energy", "energy_j", units.energy),
    ("of it computing", "compute_j", units.energy),
    ("of it radio", "radio_j", units.energy),
    ("virtual time", "virtual_time_s", units.duration),
)


def compared(summary: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """(cost, ours, the baseline's, their ratio) up to the target accuracy, for a summary that reached it."""
    ours, theirs, ratios = summary["to_target"], summary["baseline"]["to_target"], summary["savings"]
    return [
        (name, show(ours[key]), show(theirs[key]), units.times(ratios[key])) for name, key, show in _COSTS
    ]


def score_of(summary: Mapping[str, Any]) -> tuple[str, str]:
    """What a run is judged by, and its value: the accuracy, or the loss of a task without one."""
    if summary["accuracy"] is None and summary["loss"] is not None:
        return "loss, last model", f"{summary['loss']:.4g}"
    by = " (devices)" if summary["accuracy_from"] == "devices" else ""
    return f"accuracy, last five rounds{by}", units.percent(summary["accuracy_last5"])


def best_of(summary: Mapping[str, Any]) -> str:
    """The best model in words."""
    best = summary["best"]
    if best is None:
        return units.UNKNOWN
    score = f"loss {best['loss']:.4g}" if best["accuracy"] is None else units.percent(best["accuracy"])
    by = "devices" if best["judged_by"] == "devices" else "the server"
    return f"round {best['round']}: {score} by {by}"


def reached(summary: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """(accuracy, rounds of both, times fewer bytes up, bytes down, joules) for each accuracy of a comparison."""
    rows = []
    for compared in (*summary["reach"], summary):
        ours, theirs, ratios = compared["to_target"], compared["baseline"]["to_target"], compared["savings"]
        rounds = " / ".join(
            "not reached" if run["rounds"] is None else str(run["rounds"]) for run in (ours, theirs)
        )
        up, down, joules = (
            units.times(ratios[cost]) for cost in ("uplink_bytes", "downlink_bytes", "energy_j")
        )
        rows.append((units.percent(ours["accuracy"]), rounds, up, down, joules))
    return rows


def phases(summary: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """(phase in words, what it took) for each phase of a round that took time or joules."""
    return [
        (_PHASES.get(name, name), phase)
        for name, phase in summary["energy_by_phase"].items()
        if phase["energy_j"] or phase.get("time_s")
    ]


_PHASES: Mapping[str, str] = {
    "startup": "start-up",
    "idle": "pauses",
    "unreported": "not reported",
}


def own_budgets(budgets: Budgets) -> str:
    """One sentence on the classes whose own limits take the place of the common ones; empty where there are none."""
    common = asdict(budgets.common)
    changes = {
        name: [
            f"{limit} {_limit(own)} instead of {_limit(common[limit])}"
            for limit, own in asdict(limits).items()
            if own != common[limit]
        ]
        for name, limits in sorted(budgets.by_class.items())
    }
    said = [f"{name} ({', '.join(changed)})" for name, changed in changes.items() if changed]
    return (
        f"the common budget does not bind classes with limits of their own: {'; '.join(said)}" if said else ""
    )


def by_class(devices: Sequence[DeviceRow]) -> dict[str, list[DeviceRow]]:
    """Device class -> its devices, in order of class."""
    groups: dict[str, list[DeviceRow]] = defaultdict(list)
    for device in devices:
        groups[device.device_class].append(device)
    return {name: groups[name] for name in sorted(groups)}


def idle_classes(devices: Sequence[DeviceRow]) -> str:
    """The classes of which no update was ever used, each with the reason; empty where there are none."""
    idle = [
        f"{name} ({_why_idle(group)})"
        for name, group in by_class(devices).items()
        if not any(device.participations for device in group)
    ]
    return ", ".join(idle)


def alarms(record: RunRecord) -> str:
    """The last round in which the model was found broken, and how many there were; empty where there was none."""
    broken = [row for row in record.rows if row.alarm]
    if not broken:
        return ""
    others = f" ({units.count(len(broken))} rounds in all)" if len(broken) > 1 else ""
    return f"Round {broken[-1].round}: {broken[-1].alarm}{others}."


def why_untrained(record: RunRecord) -> str:
    """One sentence on why a run came to nothing; empty where an update was used."""
    if any(row.completed for row in record.rows):
        return ""
    rounds = len(record.rows)
    if not rounds:
        return "No round was run, so the model is untrained."
    begins = f"No update was used in {rounds} round{'s' if rounds > 1 else ''}, so the model is untrained"
    kinds = tally(record.skipped, record.rejected, record.failed)
    if not kinds:
        return f"{begins}: no device could be reached."
    what, reason, times = max(kinds, key=lambda kind: kind[2])
    meaning = f", {explain(reason)}" if explain(reason) else ""
    return f"{begins}: most often ({units.count(times)} times) a device {_VERBS[what]}: {reason}{meaning}."


_VERBS: Mapping[str, str] = {
    "skipped": "was skipped",
    "rejected": "had its update rejected",
    "failed": "failed",
}


def _why_idle(group: Sequence[DeviceRow]) -> str:
    """Why no update of these devices was used: their most frequent constraint, if that is what left them out."""
    skipped = Counter(device.last_reason.split(":")[0] for device in group if device.skips)
    if any(device.failures or device.rejections for device in group):
        return "no update used"
    return skipped.most_common(1)[0][0] if skipped else "never chosen"


def _limit(value: float | None) -> str:
    return NO_LIMIT if value is None else f"{value:.15g}"
