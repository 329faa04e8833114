"""Update files: the trained tensors in a tensor file, in the types in which the codec takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.codec.quantise.grid import LARGEST_VALUE
from slimfleet.compression.edge.tensor_files import Stored, read_tensors
from slimfleet.compression.errors import BadInput
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors


@dataclass(frozen=True, slots=True)
class Update:
    """The trained tensors of a file, as they are coded."""

    tensors: Tensors
    """float16 as it is; every other float type as float32."""
    nbytes: int
    """Of these tensors, as the file has them."""
    remarks: tuple[str, ...]
    """What was left out or converted, and why; a line for each reason."""


_OBSERVED = ("running_mean", "running_var")


def load_update(path: Path) -> Update:
    """The trained tensors of a file: its floats but batch norm's running statistics.

    Raises BadInput when the file cannot be read or holds no such tensor, or one that float32 cannot hold: NaN,
    infinity, or too large a number.
    """
    return _update_of(path, read_tensors(path))


def _update_of(path: Path, stored: Mapping[str, Stored]) -> Update:
    tensors, remarks = {}, dict[str, list[str]]()
    for name, each in stored.items():
        left_out = _left_out(name, each)
        if left_out:
            remarks.setdefault(f"left out ({left_out})", []).append(name)
            continue
        assert each.array is not None, "what has no array is left out"
        tensors[name] = _as_coded(path, name, each.array)
        if each.dtype not in ("float16", "float32"):
            remarks.setdefault(f"coded as float32 ({each.dtype} in the file)", []).append(name)
    if not sum(array.size for array in tensors.values()):
        found = ", ".join(f"{name} {each.dtype}" for name, each in stored.items())
        raise BadInput(f"{path} holds no float array to compress (found: {found or 'nothing'})")
    return Update(
        tensors,
        sum(stored[name].nbytes for name in tensors),
        tuple(f"{reason}: {_listed(names)}" for reason, names in remarks.items()),
    )


def load_reference(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Tensors:
    """The tensors of a file that an update of these shapes has too, as float32.

    Raises BadInput where one is missing or has another shape.
    """
    known = load_update(path).tensors
    for name, shape in shapes.items():
        if name not in known or known[name].shape != shape:
            found = f"{list(known[name].shape)}" if name in known else "nothing"
            raise BadInput(f"{path}: {name!r} must be {list(shape)} as in the update, found {found}")
    return {name: known[name].astype(np.float32) for name in shapes}


def possible_schemas(path: Path) -> Iterator[ModelSchema]:
    """The schemas that a payload of the tensors in a file may have been made for.

    Its update alone or the whole model, in the order of the file or, as .safetensors loses the order, of the names.
    Raises BadInput as `load_update` does.
    """
    stored = read_tensors(path)
    update = _update_of(path, stored).tensors
    model = {
        name: update.get(name, each.array)
        for name, each in stored.items()
        if each.array is not None and each.array.dtype.kind in "fiub"
    }
    for tensors in (update, model):
        for names in (list(tensors), sorted(tensors)):
            yield ModelSchema.of({name: tensors[name] for name in names}, update)


def _left_out(name: str, stored: Stored) -> str:
    """Why a tensor is no part of an update; empty when it is."""
    if stored.array is None:
        return f"{stored.dtype} cannot be read here"
    if stored.array.dtype.kind != "f":
        return f"{stored.dtype} is no float type"
    return "running statistics of a batch norm" if name.endswith(_OBSERVED) else ""


def _as_coded(path: Path, name: str, array: NDArray[Any]) -> NDArray[Any]:
    kind = np.float16 if array.dtype == np.float16 else np.float32
    if array.size and not np.isfinite(array).all():
        raise BadInput(f"{path}: array {name!r} holds NaN or infinity")
    largest = float(np.abs(array).max(initial=0))
    if largest > LARGEST_VALUE:
        raise BadInput(
            f"{path}: array {name!r} holds a value of magnitude {largest:.3g}, above {LARGEST_VALUE:.3g}, "
            f"the most that an update can carry"
        )
    return np.ascontiguousarray(array, kind)


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown
