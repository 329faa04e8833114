"""Words: what the report page and the terminal both say of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from slimfleet.simulations import units

__all__ = ["compared", "explain", "tally"]

_REASONS: Mapping[str, str] = {
    "energy_j": "the smallest plan needs more joules than the budget holds",
    "memory_bytes": "the narrowest model needs more memory than there is",
    "deadline_s": "the smallest plan would not be done by the deadline",
    "uplink_bytes": "the smallest update is larger than the uplink budget",
    "downlink_bytes": "the smallest model is larger than the downlink budget",
    "local_steps": "not one training step fitted the budget",
    "battery": "the battery is below the floor for taking part",
    "dropout": "the device vanished in mid-round",
    "late": "the answer came after the deadline",
    "timeout": "no answer came in time",
    "worker": "the process that ran the device died",
    "error": "the device raised an error",
    "refused": "the device declined the work",
    "incomplete": "the answer lacked a part",
    "message": "the report that came with the update is not credible",
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
