"""Files around a compression: the checkpoint that it starts from, the folder that it fills."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from slimfleet.compression.edge.command_line import json_text
from slimfleet.compression.edge.tensor_files import head_of, read_tensors, write_tensors
from slimfleet.compression.errors import BadInput
from slimfleet.compression.files import write_atomically
from slimfleet.compression.model.compress import Compressed
from slimfleet.compression.model.report.page import report_html
from slimfleet.compression.model.saving.file import load_model
from slimfleet.compression.model.summary import summary_of
from slimfleet.compression.packing.layout import MAGIC
from slimfleet.compression.task import Task
from slimfleet.compression.tensors import tensors_of

__all__ = ["read_checkpoint", "write_outputs"]


def read_checkpoint(path: Path, task: Task) -> nn.Module:
    """The model of `task` with the weights of a file: .safetensors, .pt, .npz or a model.slim.

    Raises BadInput where the file is of another model.
    """
    if head_of(path).startswith(MAGIC):
        return load_model(path, task)
    model = task.build_model()
    wanted = model.state_dict()
    stored = read_tensors(path)
    for name in wanted.keys() ^ stored.keys():
        where = "is missing from" if name in wanted else "is only in"
        raise BadInput(f"{path} is no checkpoint of task {task.name!r}: tensor {name!r} {where} the file")
    state = {}
    for name, tensor in wanted.items():
        array = stored[name].array
        if array is None or tuple(array.shape) != tuple(tensor.shape):
            found = stored[name].dtype if array is None else list(array.shape)
            raise BadInput(
                f"{path} is no checkpoint of task {task.name!r}: tensor {name!r} is {found}, "
                f"the model has {list(tensor.shape)}"
            )
        state[name] = torch.tensor(array).to(tensor.dtype)
    model.load_state_dict(state)
    return model.eval()


def write_outputs(compressed: Compressed, folder: Path, command: str = "") -> None:
    """Write model.safetensors, the dense tensors of the reduced architecture, report.html, which tells the `command`,
    and last summary.json; model.slim is there.
    """
    write_tensors(folder / "model.safetensors", tensors_of(compressed.model))
    write_atomically(folder / "report.html", report_html(compressed, command).encode())
    write_atomically(folder / "summary.json", (json_text(summary_of(compressed)) + "\n").encode())
