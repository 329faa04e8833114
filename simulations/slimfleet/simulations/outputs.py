"""The folder that a run leaves behind."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from slimfleet.compression.files import write_atomically
from slimfleet.compression.types import Tensors
from slimfleet.coordinator import RoundRow
from slimfleet.coordinator.model_file import write_model
from slimfleet.simulations.outcome import DeviceRow, RunRecord
from slimfleet.simulations.report import report_html
from slimfleet.simulations.summary import summarise


def write_outputs(
    out: Path,
    record: RunRecord,
    baseline: RunRecord | None,
    scenario_toml: str,
    model_tensors: Tensors,
    versions: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write what a run came to into `out`, each file whole or not at all, and return the summary.

    `scenario.toml`, `model.safetensors`, `rounds.csv`, `devices.csv`, `report.html`, with a baseline also
    `baseline_rounds.csv`, and last `summary.json`: where it stands, the folder is complete. `versions` names
    the packages that made the numbers, for the report. Raises OSError where the disk refuses.
    """
    for stale in ("summary.json", "baseline_rounds.csv"):
        (out / stale).unlink(missing_ok=True)
    write_atomically(out / "scenario.toml", scenario_toml.encode())
    write_model(out / "model.safetensors", model_tensors)
    write_atomically(out / "rounds.csv", _csv(RoundRow, record.rows))
    write_atomically(out / "devices.csv", _csv(DeviceRow, record.device_rows))
    if baseline is not None:
        write_atomically(out / "baseline_rounds.csv", _csv(RoundRow, baseline.rows))
    write_atomically(out / "report.html", report_html(record, baseline, scenario_toml, versions).encode())
    summary = summarise(record, baseline)
    write_atomically(out / "summary.json", (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode())
    return summary


def _csv(kind: type[RoundRow] | type[DeviceRow], rows: Sequence[RoundRow | DeviceRow]) -> bytes:
    """One line a row under the field names; an unknown value is an empty cell."""
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(kind)], lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(row) for row in rows)
    return text.getvalue().encode()
