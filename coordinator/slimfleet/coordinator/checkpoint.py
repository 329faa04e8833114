"""Checkpoints: everything a coordinator needs to go on, written whole or not at all.

A checkpoint is one folder, named by the last closed round and put in place by a single rename. A process killed at
any moment leaves the previous one intact; resuming loses the open round and nothing else.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from slimfleet.compression import BadInput, Tensors
from slimfleet.compression.codec import Snapshot
from slimfleet.compression.cost import UpdateSizeModel
from slimfleet.coordinator.coordinator import Coordinator
from slimfleet.coordinator.learning.calibration import Calibration
from slimfleet.coordinator.learning.outcome import RoundRow
from slimfleet.coordinator.learning.tally import Totals
from slimfleet.coordinator.registry import Registry
from slimfleet.coordinator.sending.versions import Versions

FORMAT = 3
KEPT = 2
"""Checkpoints kept: the newest, and one more in case the disk lies."""

log = logging.getLogger(__name__)


def save_checkpoint(root: Path, coordinator: Coordinator) -> Path:
    """Write the coordinator's state under `root` and drop checkpoints older than the last two."""
    with coordinator.observer.phase("checkpoint"):
        folder = _write(root, coordinator)
    coordinator.observer.checkpointed(sum(file.stat().st_size for file in folder.iterdir()))
    for old in checkpoints(root)[:-KEPT]:
        shutil.rmtree(old)
    return folder


def checkpoints(root: Path) -> list[Path]:
    """Complete checkpoints under `root`, oldest first."""
    return sorted(p for p in root.glob("round-*") if p.is_dir() and p.name.removeprefix("round-").isdigit())


def restore_checkpoint(root: Path, coordinator: Coordinator) -> None:
    """Put a freshly made coordinator back to where the newest sound checkpoint under `root` was written.

    One that the disk has damaged is passed over with a warning. Raises BadInput when there is none, or when it belongs
    to another model, optimiser or version.
    """
    for folder in reversed(checkpoints(root)):
        try:
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            arrays = load_file(folder / "server.safetensors")
        except (OSError, ValueError, SafetensorError) as error:
            log.warning("the checkpoint %s is damaged (%s): going back to the one before it", folder, error)
            continue
        _check(folder, state, coordinator)
        _restore(coordinator, state, arrays)
        coordinator.versions.restore(_read_versions(folder, coordinator))
        return
    raise BadInput(f"no sound checkpoint under {root}: nothing to resume; run without --resume")


def _write(root: Path, coordinator: Coordinator) -> Path:
    name = _name(len(coordinator.rows))
    folder, partial = root / name, root / f"{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(coordinator.server.state(), partial / "server.safetensors")
    _write_versions(partial, root / _name(len(coordinator.rows) - 1), coordinator.versions)
    (partial / "state.json").write_text(json.dumps(_state(coordinator)), encoding="utf-8")
    for file in (*partial.iterdir(), partial):
        _flush(file)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    _flush(root)
    return folder


def _name(rounds: int) -> str:
    return f"round-{rounds:06d}"


def _write_versions(folder: Path, before: Path, versions: Versions) -> None:
    """The published models. They never change, so those that the checkpoint `before` has too share one file with it."""
    for number, snapshot in versions:
        name = f"version-{number:06d}-{snapshot.fingerprint:016x}.safetensors"
        try:
            os.link(before / name, folder / name)
        except OSError:  # it is new, or the file system has no hard links
            levels = {f"levels/{key}": array for key, array in snapshot.levels.items()}
            save_file({**levels, "units": np.array(snapshot.units, np.float32)}, folder / name)


def _read_versions(folder: Path, coordinator: Coordinator) -> dict[int, Snapshot]:
    """The published models. One that the disk has damaged is left out: whoever holds it is sent a whole model."""
    versions = {}
    for path in sorted(folder.glob("version-*.safetensors")):
        _, number, fingerprint = path.stem.split("-")
        try:
            arrays = load_file(path)
            names = [spec.name for spec in coordinator.blueprint.schema.weights]
            levels = {name: arrays[f"levels/{name}"] for name in names}
            snapshot = Snapshot(levels, tuple(map(float, arrays["units"])))
            sound = snapshot.fingerprint == int(fingerprint, 16)
        except (OSError, KeyError, ValueError, SafetensorError):
            sound = False
        if sound:
            versions[int(number)] = snapshot
        else:
            log.warning("the published model %s is damaged: who holds it will be sent a whole one", path)
    return versions


def _state(coordinator: Coordinator) -> dict[str, Any]:
    return {
        **_identity(coordinator),
        "rows": [asdict(row) for row in coordinator.rows],
        "registry": coordinator.registry.to_json(),
        "calibration": coordinator.calibration.to_json(),
        "sizes": coordinator.cost_model.sizes.to_json(),
        "environment": coordinator.environment.to_json(),
        "totals": coordinator.totals.to_json(),
    }


def _identity(coordinator: Coordinator) -> dict[str, Any]:
    """What a checkpoint and whoever takes it up must have in common."""
    return {
        "format": FORMAT,
        "schema": coordinator.blueprint.schema.digest.hex(),
        "optimizer": coordinator.settings.server.optimizer,
    }


def _check(folder: Path, state: dict[str, Any], coordinator: Coordinator) -> None:
    what = {
        "format": "checkpoint format",
        "schema": "the model with schema",
        "optimizer": "the server optimiser",
    }
    for key, expected in _identity(coordinator).items():
        if state.get(key) != expected:
            raise BadInput(
                f"{folder} is of {what[key]} {state.get(key)}, expected is {expected}: "
                f"resume with the version and scenario it began with"
            )


def _restore(coordinator: Coordinator, state: dict[str, Any], arrays: Tensors) -> None:
    coordinator.server.restore(arrays)
    coordinator.rows = [RoundRow(**row) for row in state["rows"]]
    coordinator.registry = Registry.from_json(state["registry"])
    coordinator.calibration = Calibration.from_json(state["calibration"])
    coordinator.cost_model = replace(coordinator.cost_model, sizes=UpdateSizeModel.from_json(state["sizes"]))
    coordinator.environment.restore(state["environment"])
    coordinator.totals = Totals.from_json(state["totals"])


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
