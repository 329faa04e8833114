"""Results folder: what a run leaves behind when it is over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from slimfleet.compression.files import write_atomically
from slimfleet.compression.types import Tensors
from slimfleet.coordinator.checkpoint import write_model
from slimfleet.coordinator.learning.row import RoundRow
from slimfleet.coordinator.observing.rounds import csv_of
from slimfleet.coordinator.reporting.outcome import DeviceRow, RunRecord
from slimfleet.coordinator.reporting.page import report_html
from slimfleet.coordinator.reporting.summary import summarise

LAST_MODEL, BEST_MODEL = "model.safetensors", "model-best.safetensors"


def write_outputs(
    out: Path,
    record: RunRecord,
    baseline: RunRecord | None,
    settings_toml: str,
    model_tensors: Tensors | None,
    best_tensors: Tensors | None = None,
) -> dict[str, Any]:
    """Write the results of a run into `out`, each file whole or not at all, and return the summary.

    `model.safetensors`, `model-best.safetensors` where the best model is known, `devices.csv`, `report.html`, with a
    baseline also `baseline_rounds.csv`, and last `summary.json`: where it stands, the folder is complete. (`rounds.csv`
    is written during the run.) Without `model_tensors` there is no model. `settings_toml` is what the run was started
    with, for the report.
    Raises DiskError where the disk refuses.
    """
    for stale in ("summary.json", "baseline_rounds.csv", LAST_MODEL, BEST_MODEL):
        (out / stale).unlink(missing_ok=True)
    if model_tensors is not None:
        write_model(out / LAST_MODEL, model_tensors)
        if best_tensors is not None:
            write_model(out / BEST_MODEL, best_tensors)
    write_atomically(out / "devices.csv", csv_of(DeviceRow, record.device_rows))
    if baseline is not None:
        write_atomically(out / "baseline_rounds.csv", csv_of(RoundRow, baseline.rows))
    write_atomically(out / "report.html", report_html(record, baseline, settings_toml).encode())
    summary = summarise(record, baseline)
    write_atomically(out / "summary.json", (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode())
    return summary
