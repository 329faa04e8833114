"""Rows on disk, one file a peer, model and seed, so that a benchmark goes on where it was interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from slimfleet.compression.files import write_atomically

Row = TypeVar("Row")


def kept(file: Path, kind: type[Row], measure: Callable[[], Sequence[Any]]) -> list[Row]:
    """The rows, dataclasses of plain values, in `file`, which is made of what `measure` gives where it is not there."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps([asdict(row) for row in measure()], indent=1).encode())
    return [kind(**fields) for fields in json.loads(file.read_text())]
