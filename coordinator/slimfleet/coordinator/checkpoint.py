"""Checkpoints on disk: a folder a round, written whole or not at all.

The folder is named by the last closed round and put in place by a single rename. A process killed at any moment leaves
the previous one intact. What has happened since is in its journal (`keeping`).
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import ValidationError
from safetensors.numpy import save

from slimfleet.compression import BadInput, PayloadError, Tensors
from slimfleet.compression.errors import DiskError
from slimfleet.compression.files import naming, read_file, write_atomically
from slimfleet.compression.validation import first_problem
from slimfleet.coordinator.environment import Environment
from slimfleet.coordinator.observing.events import Saved
from slimfleet.coordinator.state import LASTING_FILES, Files, State, files_of, restore

KEPT = 2
"""Checkpoints kept: the newest, and the one before it in case the newest is damaged."""
LONGEST_REASON = 200
"""Most characters that the log repeats of what is wrong with a checkpoint."""

log = logging.getLogger(__name__)


def save_checkpoint(
    root: Path, state: State, environment: Environment, stopwatch: Callable[[], float] = time.perf_counter
) -> Saved:
    """Write the state under `root`; of the checkpoints there, keep it and the one before it.

    Raises DiskError where the disk refuses; the checkpoints of earlier rounds are as they were then.
    """
    began = stopwatch()
    rounds = len(state.rows)
    with naming(root):
        folder = _write(root, rounds, files_of(state, environment))
        kept = [each for each in checkpoints(root) if _rounds(each) <= rounds][-KEPT:]
        for old in (*root.glob("*.partial"), *checkpoints(root)):
            if old not in kept:
                _remove(old)
        size_bytes = sum(file.stat().st_size for file in folder.iterdir())
    return Saved(folder=folder, size_bytes=size_bytes, seconds=stopwatch() - began)


def checkpoints(root: Path) -> list[Path]:
    """Checkpoints under `root`, oldest first. Raises DiskError where it cannot be looked into."""
    try:
        with naming(root, "read"):
            found = [path for path in root.iterdir() if _NAME.fullmatch(path.name)]
    except DiskError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return []
        raise
    return sorted(found, key=_rounds)


def closed_rounds(root: Path) -> int:
    """Rounds that the newest checkpoint under `root` holds; 0 without one."""
    return max(map(_rounds, checkpoints(root)), default=0)


def restore_checkpoint(root: Path, state: State, environment: Environment) -> tuple[Path, float]:
    """Restore a fresh state from the newest intact checkpoint under `root`.

    Returns its folder, and when it was written by the environment's time. A damaged one is passed over, and the log
    says so. Raises BadInput when there is none, when the newest may not be read, or when it belongs to another model or
    optimiser.
    """
    damaged: dict[Path, str] = {}
    for folder in reversed(checkpoints(root)):
        try:
            saved_s = restore(state, environment, partial(_read, folder), _rounds(folder))
        except BadInput as error:
            raise BadInput(f"{folder} {error}") from error
        except PermissionError as error:
            raise DiskError(f"cannot read {error.filename or folder}: {error.strerror}") from error
        except (OSError, ValueError, PayloadError) as error:
            damaged[folder] = _in_short(error)
        else:
            for each, why in damaged.items():
                log.error("the checkpoint %s is damaged (%s): going back to %s", each, why, folder.name)
            return folder, saved_s
    found = "; ".join(f"{folder.name}: {why}" for folder, why in damaged.items()) or "it is empty"
    raise BadInput(f"no sound checkpoint under {root} ({found}): start again in another folder")


def _read(folder: Path, name: str) -> bytes:
    return read_file(folder / name)


def _in_short(error: Exception) -> str:
    """What is wrong, on one line: the name of a file and the system's reason, or the message."""
    if isinstance(error, OSError):
        name = Path(str(error.filename)).name
        return f"{name}: {error.strerror}"
    problem = str(first_problem(error)) if isinstance(error, ValidationError) else str(error)
    line = " ".join(problem.split())
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]}..."


def _write(root: Path, rounds: int, files: Files) -> Path:
    # A version is shared with the checkpoint two rounds ago, never with the neighbour: damage to one file on the disk
    # must not harm both of the checkpoints that are kept.
    folder, shared = root / _name(rounds), root / _name(rounds - KEPT)
    partial_folder = root / f"{folder.name}.partial"
    _remove(partial_folder)
    partial_folder.mkdir(parents=True)
    for name, content in files.items():
        if not (name.startswith(LASTING_FILES) and _linked(shared / name, partial_folder / name)):
            (partial_folder / name).write_bytes(content())
    for file in (*partial_folder.iterdir(), partial_folder):
        _flush(file)
    _remove(folder)
    partial_folder.rename(folder)
    _flush(root)
    return folder


def _remove(path: Path) -> None:
    """Remove a folder with its content, or whatever else has its name; nothing is fine too."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _name(rounds: int) -> str:
    return f"round-{rounds:06d}"


_NAME = re.compile(r"round-([0-9]{6,18})")


def _rounds(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("round-"))


def _linked(existing: Path, new: Path) -> bool:
    """Share a file that never changes with an earlier checkpoint; False where there is none, or no hard links."""
    try:
        os.link(existing, new, follow_symlinks=False)
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
    """Write a model as safetensors, whole or not at all. Raises DiskError where the disk refuses."""
    # safetensors writes the memory of a transposed array as if it were in C order.
    in_order = {name: np.array(array, order="C") for name, array in tensors.items()}
    write_atomically(path, save(in_order))
