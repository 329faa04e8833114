"""Folders of finished runs, read back for a comparison; what is missing or odd in one is BadInput."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from slimfleet.compression.errors import BadInput
from slimfleet.compression.files import naming, read_file
from slimfleet.simulations.sweeps.outcomes import Finished

__all__ = ["finished_run"]

NEEDED = ("scenario", "seed", "rounds", "devices", "accuracy_last5", "loss", "uplink_bytes", "energy_j")


def finished_run(folder: Path, name: str, out: Path) -> Finished:
    """The finished run in a folder, for a comparison in the folder `out`. Raises BadInput where there is none."""
    summary = _json(folder / "summary.json", folder)
    missing = [key for key in NEEDED if key not in summary]
    if missing:
        raise BadInput(
            f"{folder / 'summary.json'} lacks {missing[0]}: it is not of a run of slimfleet-simulate"
        )
    return Finished(
        name=name,
        folder=folder,
        summary=summary,
        rounds=_rounds(folder / "rounds.csv"),
        report=Path(os.path.relpath(folder.resolve(), out.resolve()), "report.html").as_posix(),
    )


def _json(path: Path, folder: Path) -> dict[str, Any]:
    with naming(path, "read"):
        if not path.exists():
            begun = (folder / "scenario.toml").exists()
            hint = f"; finish it with: slimfleet-simulate --resume {folder}" if begun else ""
            raise BadInput(f"{folder} holds no finished run: there is no summary.json in it{hint}")
        text = read_file(path)
    try:
        summary = json.loads(text)
    except ValueError as error:
        raise BadInput(f"{path} is not JSON: {error}") from error
    if not isinstance(summary, dict):
        raise BadInput(f"{path} holds no table of results")
    return summary


def _rounds(path: Path) -> list[Mapping[str, float | None]]:
    """Every cell that is a number; none where there is no such file."""
    with naming(path, "read"):
        if not path.exists():
            return []
        text = read_file(path).decode(errors="replace")
    return [{key: _number(cell) for key, cell in row.items()} for row in csv.DictReader(io.StringIO(text))]


def _number(cell: str | None) -> float | None:
    try:
        value = float(cell or "")
    except ValueError:
        return None
    return value if isfinite(value) else None
