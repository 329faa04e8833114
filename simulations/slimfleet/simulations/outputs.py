"""Results folder: every file that a run leaves behind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slimfleet.compression.files import write_atomically
from slimfleet.compression.types import Tensors
from slimfleet.coordinator import RoundRow
from slimfleet.coordinator.checkpoint import write_model
from slimfleet.coordinator.observing.rounds import csv_of
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
    """Write the results of a run into `out`, each file whole or not at all, and return the summary.

    `scenario.toml`, `model.safetensors`, `devices.csv`, `report.html`, with a baseline also `baseline_rounds.csv`, and
    last `summary.json`: where it stands, the folder is complete. (`rounds.csv` is written during the run.)
    `versions` names the packages that made the numbers, for the report. Raises DiskError where the disk refuses.
    """
    for stale in ("summary.json", "baseline_rounds.csv"):
        (out / stale).unlink(missing_ok=True)
    write_atomically(out / "scenario.toml", scenario_toml.encode())
    write_model(out / "model.safetensors", model_tensors)
    write_atomically(out / "devices.csv", csv_of(DeviceRow, record.device_rows))
    if baseline is not None:
        write_atomically(out / "baseline_rounds.csv", csv_of(RoundRow, baseline.rows))
    write_atomically(out / "report.html", report_html(record, baseline, scenario_toml, versions).encode())
    summary = summarise(record, baseline)
    write_atomically(out / "summary.json", (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode())
    return summary
