"""Stored tensors: what each tensor of a model is in its file: its bits, its zeros, its bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from slimfleet.compression.model.constraints import Constraint, Grid, Shared
from slimfleet.compression.model.saving.architecture_changes import first_names
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.packing import SlimFile

__all__ = ["StoredTensor", "bytes_of_layer", "stored_tensors"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """One tensor of a model.slim."""

    name: str
    shape: tuple[int, ...]
    elements: int
    zeros: int
    """Elements that are zero."""
    coding: str
    """`on-grid`, `codebook`, `grid` (to an error), `plain` (bit for bit) or `tied`, which takes no room."""
    bits: int
    """Of a value at rest before entropy coding: of the grid, of a place in the codebook, or of the dtype."""
    values: int | None
    """Different values of a codebook; None without one."""
    bytes: float
    """In the file; its share by elements where tensors share a section."""
    bits_per_weight: float
    """The bytes in bits, by element."""


def stored_tensors(slim: SlimModel, path: Path) -> tuple[StoredTensor, ...]:
    """The tensors of a model and its model.slim, in the order of the file."""
    state, first = slim.model.state_dict(), first_names(slim.model)
    with SlimFile.open(path) as file:
        described = [file.describe(name) for name in file.names]
    found = []
    for each in described:
        tensor = state[each.name]
        constraint = slim.constraints.get(first.get(each.name, each.name))
        found.append(
            StoredTensor(
                name=each.name,
                shape=each.shape,
                elements=tensor.numel(),
                zeros=tensor.numel() - int(torch.count_nonzero(tensor)),
                coding=each.coding,
                bits=_bits(tensor, constraint),
                values=_values(tensor) if isinstance(constraint, Shared) else None,
                bytes=each.bytes,
                bits_per_weight=8 * each.bytes / max(tensor.numel(), 1),
            )
        )
    return tuple(found)


def bytes_of_layer(tensors: Sequence[StoredTensor], layer: str) -> float:
    """What the tensors of a layer, or the tensor of that name, take in the file."""
    return sum(each.bytes for each in tensors if f"{each.name}.".startswith(f"{layer}."))


def _bits(tensor: Tensor, constraint: Constraint | None) -> int:
    match constraint:
        case Grid():
            return constraint.bits
        case Shared():
            return max(_values(tensor) - 1, 1).bit_length()
    return 8 * tensor.element_size()


def _values(tensor: Tensor) -> int:
    return len(set(tensor.flatten().tolist()))
