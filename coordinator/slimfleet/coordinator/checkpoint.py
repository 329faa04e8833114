"""Checkpoints: everything a coordinator needs to go on, written whole or not at all.

A checkpoint is one folder, named by the last closed round and put in place by a single rename. A process killed at
any moment leaves the previous one intact; resuming loses the open round and nothing else.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

from safetensors.numpy import load_file, save_file

from slimfleet.compression import BadInput
from slimfleet.compression.cost import UpdateSizeModel
from slimfleet.coordinator.calibration import Calibration
from slimfleet.coordinator.coordinator import Coordinator
from slimfleet.coordinator.outcome import RoundRow
from slimfleet.coordinator.registry import Registry

FORMAT = 1
KEPT = 2
"""Checkpoints kept: the newest, and one more in case the disk lies."""


def save_checkpoint(root: Path, coordinator: Coordinator) -> Path:
    """Write the coordinator's state under `root` and drop checkpoints older than the last two."""
    name = f"round-{len(coordinator.rows):06d}"
    folder, partial = root / name, root / f"{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(coordinator.server.state(), partial / "server.safetensors")
    state = {
        "format": FORMAT,
        "schema": coordinator.blueprint.schema.digest.hex(),
        "rows": [asdict(row) for row in coordinator.rows],
        "registry": coordinator.registry.to_json(),
        "calibration": coordinator.calibration.to_json(),
        "sizes": coordinator.cost_model.sizes.to_json(),
        "environment": coordinator.environment.to_json(),
        "counts": {
            name: dict(getattr(coordinator, name)) for name in ("skipped", "rejected", "failed", "violations")
        },
    }
    (partial / "state.json").write_text(json.dumps(state))
    for file in (*partial.iterdir(), partial):
        _flush(file)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    _flush(root)
    for old in checkpoints(root)[:-KEPT]:
        shutil.rmtree(old)
    return folder


def checkpoints(root: Path) -> list[Path]:
    """Complete checkpoints under `root`, oldest first."""
    return sorted(p for p in root.glob("round-*") if p.is_dir() and p.suffix != ".partial")


def restore_checkpoint(root: Path, coordinator: Coordinator) -> None:
    """Put a freshly made coordinator back to where the newest checkpoint under `root` was written.

    Raises BadInput when there is none, or when it belongs to another model or version.
    """
    found = checkpoints(root)
    if not found:
        raise BadInput(f"no checkpoint under {root}: nothing to resume; run without --resume")
    state = json.loads((found[-1] / "state.json").read_text())
    if state["format"] != FORMAT:
        raise BadInput(f"{found[-1]} has checkpoint format {state['format']}, this version reads {FORMAT}")
    if state["schema"] != coordinator.blueprint.schema.digest.hex():
        raise BadInput(
            f"{found[-1]} holds another model than the task builds: resume with the scenario it began with"
        )
    coordinator.server.restore(load_file(found[-1] / "server.safetensors"))
    coordinator.rows = [RoundRow(**row) for row in state["rows"]]
    coordinator.registry = Registry.from_json(state["registry"])
    coordinator.calibration = Calibration.from_json(state["calibration"])
    coordinator.cost_model = replace(coordinator.cost_model, sizes=UpdateSizeModel.from_json(state["sizes"]))
    coordinator.environment.restore(state["environment"])
    for name, counts in state["counts"].items():
        setattr(coordinator, name, Counter(counts))


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
