"""The published model as a file."""

from __future__ import annotations

from pathlib import Path

from safetensors.numpy import save

from slimfleet.compression import Tensors
from slimfleet.compression.files import write_atomically


def write_model(path: Path, tensors: Tensors) -> None:
    """Write a model as safetensors, whole or not at all. Raises OSError where the disk refuses."""
    # safetensors writes the memory of a transposed array as if it were in C order.
    in_order = {name: array.copy(order="C") for name, array in tensors.items()}
    write_atomically(path, save(in_order))
