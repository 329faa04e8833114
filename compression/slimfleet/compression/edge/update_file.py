"""Updates in .npz files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from slimfleet.compression.errors import BadInput
from slimfleet.compression.types import Tensors

_OBSERVED = ("running_mean", "running_var")


def load_update(path: Path) -> Tensors:
    """The trained tensors of an .npz file as float32: float arrays but batch norm's running statistics.

    Raises BadInput when the file cannot be read or holds no such array, or NaN or infinity.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise BadInput(f"{path} holds a single array: give an .npz file of named arrays")
            arrays = {name: archive[name] for name in archive.files}
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BadInput(f"{path} is not an .npz file of plain arrays, as numpy.savez writes it") from error
    update = {
        n: a.astype(np.float32)
        for n, a in arrays.items()
        if a.dtype.kind == "f" and not n.endswith(_OBSERVED)
    }
    if not sum(array.size for array in update.values()):
        raise BadInput(f"{path} holds no float array to compress (found: {', '.join(arrays) or 'nothing'})")
    for name, array in update.items():
        if not np.isfinite(array).all():
            raise BadInput(f"{path}: array {name!r} holds NaN or infinity")
    return update


def load_reference(path: Path, update: Tensors) -> Tensors:
    """The tensors of an .npz file that `update` has too. Raises BadInput where one is missing or has another shape."""
    known = load_update(path)
    for name, array in update.items():
        if name not in known or known[name].shape != array.shape:
            found = f"{list(known[name].shape)}" if name in known else "nothing"
            raise BadInput(f"{path}: {name!r} must be {list(array.shape)} as in the update, found {found}")
    return {name: known[name] for name in update}
