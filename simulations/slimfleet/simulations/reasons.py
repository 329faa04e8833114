"""Why a device was skipped, refused or lost, in a sentence each; reports and the terminal share them."""

from __future__ import annotations

from collections.abc import Mapping

WORDS: Mapping[str, str] = {
    "energy_j": "the least plan needs more joules than the budget holds",
    "power_w": "training would draw more power than the budget allows",
    "memory_bytes": "the narrowest model needs more memory than there is",
    "deadline_s": "the least work would not be done by the deadline",
    "uplink_bytes": "the smallest update is larger than may be sent",
    "downlink_bytes": "the smallest model is larger than may be received",
    "battery": "the battery is too low to take part",
    "dropout": "the device vanished in mid-round",
    "late": "the answer came after the deadline",
    "timeout": "no answer came in time",
    "worker": "the process that ran the device died",
    "error": "the device raised an error",
    "refused": "the device declined the work",
    "incomplete": "the answer lacked a part",
    "message": "what came with the update could not be read",
    "truncated": "the update's size is not what it declares",
    "oversized": "the update is larger than its model allows",
    "magic": "what came is no update",
    "version": "the update is in an unknown format",
    "header": "a header field is outside its range",
    "checksum": "the bytes were damaged on the way",
    "schema": "the update is for another model",
    "counts": "the update's sizes disagree with its model",
    "grid": "the update has an impossible quantiser",
    "entropy": "the update's coded values cannot be",
    "nonfinite": "the update holds NaN or infinity",
    "stale": "the update is for a model no longer accepted",
    "replay": "the device had answered already",
    "channels": "the update's channels are not those of its plan",
    "norm": "the update is implausibly large",
}


def explain(reason: str) -> str:
    """What a reason means; empty where it speaks for itself."""
    return WORDS.get(reason, "")


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
