"""Outcomes on disk, one JSON file each, so that an interrupted benchmark goes on where it was."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimfleet.compression.files import write_atomically


@dataclass(frozen=True, slots=True)
class Kept:
    """A folder of outcomes, each bound to what was measured."""

    folder: Path

    def get(self, name: str, of: str) -> Any:
        """The outcome of that name; None where there is none, or one of something else."""
        file = self._file(name)
        kept = json.loads(file.read_text()) if file.exists() else {"of": None}
        return kept["outcome"] if kept["of"] == of else None

    def put(self, name: str, of: str, outcome: Any) -> None:
        """Keep an outcome; never half of it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._file(name), json.dumps({"of": of, "outcome": outcome}, indent=1).encode())

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"
