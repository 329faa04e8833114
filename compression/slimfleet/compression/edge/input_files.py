"""Input files: what a person names (TOML settings, device profiles, updates), read or refused in one line."""

from __future__ import annotations

import json
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from slimfleet.compression.edge.checked import checked
from slimfleet.compression.errors import BadInput
from slimfleet.compression.types import DeviceProfile, Tensors


def read_toml(path: Path, source: str) -> dict[str, Any]:
    """The tables of a file that messages call `source`. Raises BadInput where it cannot be read or is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read {source}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{source} is not text in UTF-8 (byte {error.start})") from error
    except ValueError as error:
        raise BadInput(f"{source} is not TOML: {error}") from error
    except RecursionError as error:
        raise BadInput(f"{source} is nested too deep") from error


def read_profiles(path: Path) -> list[DeviceProfile]:
    """The device profile in a file, or the list of them. Raises BadInput naming the file and what is wrong in it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except OSError as error:
        raise BadInput(f"cannot read the profile {path}: {error.strerror}") from error
    except ValueError as error:
        raise BadInput(f"the profile {path} is not JSON: {error}") from error
    values = content if isinstance(content, list) else [content]
    return [checked(DeviceProfile, each, f"the profile {path}") for each in values]


def read_profile(path: Path) -> DeviceProfile:
    """The one device profile in a file. Raises BadInput naming the file and what is wrong in it."""
    profiles = read_profiles(path)
    if len(profiles) != 1:
        raise BadInput(f"the profile {path} holds {len(profiles)} devices, one is needed")
    return profiles[0]


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a finite number")


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
