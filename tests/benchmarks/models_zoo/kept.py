"""Outcomes on disk, one file a model, each bound to the code that it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from slimfleet.compression.files import write_atomically

from .outcome import Outcome


@dataclass(frozen=True, slots=True)
class Kept:
    """A folder of outcomes; those of another fingerprint are as good as absent."""

    folder: Path
    fingerprint: str

    def get(self, name: str) -> Outcome | None:
        """The outcome of that model, where there is one."""
        file = self._file(name)
        if not file.exists():
            return None
        fields = json.loads(file.read_text())
        return Outcome(**fields["outcome"]) if fields["fingerprint"] == self.fingerprint else None

    def put(self, outcome: Outcome) -> None:
        """Keep an outcome; never half of it."""
        fields = {"fingerprint": self.fingerprint, "outcome": asdict(outcome)}
        write_atomically(self._file(outcome.name), json.dumps(fields, indent=1).encode())

    def forget(self, names: Iterable[str]) -> None:
        """Drop the outcomes of these models."""
        for name in names:
            self._file(name).unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name.replace('/', '-')}.json"


def fingerprint(paths: Iterable[Path], versions: Iterable[str]) -> str:
    """Sixteen hex digits that change with these files, with those in these folders, and with the versions."""
    digest = hashlib.sha256(" ".join(versions).encode())
    for path in paths:
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
