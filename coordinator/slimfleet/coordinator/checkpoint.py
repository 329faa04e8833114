"""Checkpoints on disk: a folder a round, written whole or not at all.

The folder is named by the last closed round and put in place by a single rename. A process killed at any moment leaves
the previous one intact; resuming loses the open round and nothing else.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from slimfleet.compression import BadInput, PayloadError, Tensors
from slimfleet.compression.files import write_atomically
from slimfleet.coordinator.environment import Environment
from slimfleet.coordinator.observing.events import Saved
from slimfleet.coordinator.state import VERSION, Files, State, files_of, restore

KEPT = 2
"""Checkpoints kept: the newest, and the one before it in case the newest is damaged."""

log = logging.getLogger(__name__)


def save_checkpoint(
    root: Path, state: State, environment: Environment, stopwatch: Callable[[], float] = time.perf_counter
) -> Saved:
    """Write the state under `root` and drop checkpoints older than the last two."""
    began = stopwatch()
    folder = _write(root, len(state.rows), files_of(state, environment))
    for old in checkpoints(root)[:-KEPT]:
        shutil.rmtree(old)
    size_bytes = sum(file.stat().st_size for file in folder.iterdir())
    return Saved(folder=folder, size_bytes=size_bytes, seconds=stopwatch() - began)


def checkpoints(root: Path) -> list[Path]:
    """Complete checkpoints under `root`, oldest first."""
    return sorted(p for p in root.glob("round-*") if p.is_dir() and p.name.removeprefix("round-").isdigit())


def closed_rounds(root: Path) -> int:
    """Rounds that the newest checkpoint under `root` holds; 0 without one."""
    return max((int(folder.name.removeprefix("round-")) for folder in checkpoints(root)), default=0)


def restore_checkpoint(root: Path, state: State, environment: Environment) -> None:
    """Restore a fresh state from the newest intact checkpoint under `root`.

    A damaged one is skipped with a warning. Raises BadInput when there is none, or when it belongs to another
    model, optimiser or version.
    """
    for folder in reversed(checkpoints(root)):
        try:
            files = {file.name: file.read_bytes() for file in folder.iterdir()}
            restore(state, environment, files)
        except BadInput as error:
            raise BadInput(f"{folder} {error}") from error
        except (OSError, ValueError, PayloadError) as error:
            log.warning("the checkpoint %s is damaged (%s): going back to the one before it", folder, error)
        else:
            return
    raise BadInput(f"no sound checkpoint under {root}: nothing to resume; run without --resume")


def _write(root: Path, rounds: int, files: Files) -> Path:
    folder, before = root / _name(rounds), root / _name(rounds - 1)
    partial = root / f"{folder.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, content in files.items():
        if not (name.startswith(VERSION) and _linked(before / name, partial / name)):
            (partial / name).write_bytes(content())
    for file in (*partial.iterdir(), partial):
        _flush(file)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    _flush(root)
    return folder


def _name(rounds: int) -> str:
    return f"round-{rounds:06d}"


def _linked(existing: Path, new: Path) -> bool:
    """Hard-link a file that never changes from the previous checkpoint; False where that is not possible."""
    try:
        os.link(existing, new)
    except OSError:
        return False
    return True


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_model(path: Path, tensors: Tensors) -> None:
    """Write a model as safetensors, whole or not at all. Raises OSError where the disk refuses."""
    # safetensors writes the memory of a transposed array as if it were in C order.
    in_order = {name: np.array(array, order="C") for name, array in tensors.items()}
    write_atomically(path, save(in_order))
