"""Outbox: the answer to the last plan, on disk until the next, so that no cut and no restart costs the work again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from slimfleet.compression.device_api import Plan
from slimfleet.compression.errors import DiskError
from slimfleet.compression.files import naming, read_file, write_atomically

__all__ = ["Finished", "Outbox"]

FILE = "outbox.bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What a device answers to a plan: a report and its update, or a refusal."""

    report_json: str = ""
    update: bytes = b""
    reason: str = ""
    """Of a refusal; empty where the round was done."""
    message: str = ""
    spent_json: str = ""


class Outbox:
    """Keeps one answer in a folder: a line of JSON, and the update behind it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def keep(self, plan: Plan, finished: Finished) -> None:
        """Keep the answer to a plan, in place of an earlier one. Raises DiskError where the disk refuses."""
        head = {
            "plan": _key(plan),
            "update_sha256": hashlib.sha256(finished.update).hexdigest(),
            **{name: getattr(finished, name) for name in _TEXTS},
        }
        write_atomically(self._path, json.dumps(head).encode() + b"\n" + finished.update)

    def answer_to(self, plan: Plan) -> Finished | None:
        """The answer to this very plan; None where none is kept, or what is kept is damaged."""
        try:
            with naming(self._path, "read"):
                line, _, update = read_file(self._path).partition(b"\n")
            head = json.loads(line)
            if head["plan"] != _key(plan) or head["update_sha256"] != hashlib.sha256(update).hexdigest():
                return None
            return Finished(update=update, **{name: str(head[name]) for name in _TEXTS})
        except (DiskError, ValueError, KeyError, TypeError):
            return None


_TEXTS = ("report_json", "reason", "message", "spent_json")


def _key(plan: Plan) -> str:
    """A number may come again in another federation: the assignment and the model tell them apart."""
    return hashlib.sha256(plan.assignment_json.encode() + plan.model_sha256).hexdigest()
