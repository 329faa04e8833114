"""Finished runs in a file of JSON lines, so that an interrupted sweep goes on where it was."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from fedavg import Round
from methods import Method
from settings import Settings

from slimfleet.compression.codec.error import nmse
from slimfleet.compression.schema import ModelSchema


@dataclass(frozen=True, slots=True)
class Run:
    """One method on one seed."""

    method: str
    seed: int
    fingerprint: str
    """Of the settings and of what the method makes of a fixed update: a run by another codec is not taken for it."""
    seconds: float
    machine: str
    """Processor and torch that it was trained on: its last digits depend on them."""
    rounds: list[Round]


def fingerprint(settings: Settings, method: Method, schema: ModelSchema) -> str:
    """Sixteen hex digits that change with the settings, the feedback, and with the size and error of a payload.

    Not with its bytes: the last digits of a sum of float32 differ from processor to processor.
    """
    rng = np.random.default_rng(0)
    probe = {t.name: (0.01 * rng.standard_t(2.5, t.shape)).astype(np.float32) for t in schema.tensors}
    encoded = method.compressor(probe, schema, np.random.default_rng(0))
    made = f"{len(encoded.payload)} {nmse(probe, encoded.decoded):.3g}"
    return hashlib.sha256(f"{settings}{method.feedback}{made}".encode()).hexdigest()[:16]


def load(path: Path) -> dict[tuple[str, int, str], Run]:
    """The runs in `path` by method, seed and fingerprint; a line cut short by a kill is passed over."""
    runs = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            fields = json.loads(line)
        except json.JSONDecodeError:
            continue
        run = Run(**fields | {"rounds": [Round(**r) for r in fields["rounds"]]})
        runs[run.method, run.seed, run.fingerprint] = run
    return runs


def append(path: Path, run: Run) -> None:
    """Add a finished run, on a line of its own even where the last one was cut short."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")
    with path.open("a") as file:
        file.write(("" if whole else "\n") + json.dumps(asdict(run)) + "\n")
