"""`model.slim`: a compressed model in one file, with what rebuilds its architecture from the one that its task builds.

Weights that obey a constraint are stored as what they are: whole numbers on a grid, places in a codebook, zeros. The
rest is stored bit for bit. Nothing in the file is code: see `layer_kinds`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from slimfleet.compression.errors import BadInput, PayloadError
from slimfleet.compression.model.constraints import Constraint, Grid, Shared
from slimfleet.compression.model.saving.architecture_changes import changed, changes_between, first_names
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.packing import Codebook, Coding, Entry, Lossless, OnGrid, SlimFile, write_slim
from slimfleet.compression.task import Task

__all__ = ["load_model", "packed_bytes", "save_model"]

ARCHITECTURE, TASK = "architecture", "task"
"""Fields of the file: JSON of the changes, and the name of the task."""


def save_model(slim: SlimModel, path: Path, task: Task) -> None:
    """Write a model that `task` builds, changed or not. Raises BadInput for a new layer that no file can describe, and
    for weights that are NaN or infinite.
    """
    for name, weight in slim.model.named_parameters():
        if not torch.isfinite(weight).all():
            raise BadInput(f"parameter {name!r} holds NaN or infinity: such a model is not saved")
    changes = changes_between(task.build_model(), slim.model)
    fields = {ARCHITECTURE: json.dumps(changes, separators=(",", ":")), TASK: task.name}
    write_slim(path, list(_entries(slim)), fields)


def load_model(path: Path, task: Task) -> nn.Module:
    """The model in a file, rebuilt from the one that `task` builds; in evaluation mode.

    Raises PayloadError for a file that is damaged, or another task's.
    """
    with SlimFile.open(path) as file:
        try:
            changes = json.loads(file.fields[ARCHITECTURE])
        except (KeyError, ValueError, RecursionError) as error:
            raise PayloadError(
                "architecture", f"{path} holds tensors, but no model of a task: unpack it"
            ) from error
        if file.fields.get(TASK) != task.name:
            raise PayloadError(
                "schema", f"{path} is a model of task {file.fields.get(TASK)!r}, not of {task.name!r}"
            )
        tensors = {name: torch.from_numpy(np.array(file.tensor(name))) for name in file.names}
    return changed(task.build_model(), changes, tensors).eval()


def packed_bytes(slim: SlimModel, task: Task) -> int:
    """The size of the file that `save_model` writes."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.slim"
        save_model(slim, path, task)
        return path.stat().st_size


def _entries(slim: SlimModel) -> Iterator[Entry]:
    first = first_names(slim.model)  # a tied parameter is constrained by its first name
    for name, tensor in slim.model.state_dict().items():
        constraint = slim.constraints.get(first.get(name, name))
        yield Entry(name, tensor.detach().cpu().numpy(), _coding(tensor, constraint))


def _coding(tensor: Tensor, constraint: Constraint | None) -> Coding:
    match constraint:
        case Grid():
            return _on_grid(constraint)
        case Shared():
            values = constraint.values(tensor).numpy()
            return Codebook(values, constraint.places.numpy().astype(np.min_scalar_type(len(values) - 1)))
    return Lossless()


def _on_grid(grid: Grid) -> OnGrid:
    if grid.step.numel() == 1:
        return OnGrid(float(grid.step))
    axis = next(dim for dim, size in enumerate(grid.step.shape) if size > 1)
    return OnGrid(grid.step.flatten().numpy(), axis)
