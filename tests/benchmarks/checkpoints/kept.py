"""Measurements that were made already: an interrupted benchmark goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from slimfleet.compression.files import write_atomically

from .large import Run
from .lossless import Case, Result


def case(folder: Path, name: str, measure: Callable[[], Case]) -> Case:
    """One checkpoint, from the folder or measured."""
    values = _kept(folder / f"{name}.json", lambda: asdict(measure()))
    return Case(**{**values, "results": {peer: Result(**each) for peer, each in values["results"].items()}})


def runs(folder: Path, measure: Callable[[], list[Run]]) -> list[Run]:
    """The commands on the large checkpoint, from the folder or measured."""
    values = _kept(folder / "large.json", lambda: {"runs": [asdict(run) for run in measure()]})
    return [Run(**each) for each in values["runs"]]


def _kept(path: Path, measure: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    if not path.exists():
        write_atomically(path, json.dumps(measure(), indent=2).encode())
    kept: Mapping[str, Any] = json.loads(path.read_text())
    return kept
