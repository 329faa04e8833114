"""Recordings of the smartphone data set: a pickle of pandas tables, read without pandas and without running anything.

A pickle may name any function of the machine and have it called. This reader knows the twelve names that the file
uses, gives numpy's for arrays and empty stand-ins for the classes of pandas, and refuses every other name.
"""

from __future__ import annotations

import gzip
import pickle
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.errors import BadInput

SIGNALS = ("acc-x", "acc-y", "acc-z", "gyro-x", "gyro-y", "gyro-z")
LABEL = "label"


@dataclass(frozen=True, slots=True)
class Recording:
    """What one phone recorded in one go, 50 samples a second."""

    user: int
    signals: NDArray[np.float32]
    """[samples, 6]: acceleration in g, then angular velocity in rad/s, each x, y, z."""
    labels: NDArray[np.int64]
    """[samples]: the activity, from 1; -1 between two."""


def read_recordings(path: Path, remedy: str) -> list[Recording]:
    """All recordings of a gzipped pickle {user: [table]} of pandas 1.0, in the order of the file.

    Raises BadInput naming the file and `remedy` where it is damaged or names anything but arrays and tables.
    """
    try:
        with gzip.open(path) as file:
            users = _TableReader(file).load()
        return [_recording(int(user), table) for user, tables in users.items() for table in tables]
    except (
        OSError, EOFError, zlib.error, pickle.UnpicklingError,
        ArithmeticError, AttributeError, LookupError, TypeError, ValueError,
    ) as error:  # fmt: skip
        raise BadInput(f"{path} is damaged ({type(error).__name__}: {error}): run `{remedy}`") from error


class _Table:
    """Stands in for every class of pandas: keeps what the pickle says about it."""

    def __setstate__(self, state: object) -> None:
        self.state = state


def _array(kind: type, shape: object, code: object) -> NDArray[Any]:
    """The empty array that a pickled one is read into."""
    return np.ndarray((0,), dtype=np.int8)


def _encode(text: str, encoding: str) -> bytes:
    """Bytes that Python 2 wrote as text."""
    return text.encode("latin-1")


def _reconstructed(kind: Callable[[], object], base: object, state: object) -> object:
    return kind()


def _index(kind: object, content: object) -> object:
    return content


_KNOWN: Mapping[tuple[str, str], object] = MappingProxyType(
    {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): _array,
        ("_codecs", "encode"): _encode,
        ("builtins", "slice"): slice,
        ("builtins", "object"): object,
        ("copyreg", "_reconstructor"): _reconstructed,
        ("pandas.core.frame", "DataFrame"): _Table,
        ("pandas.core.internals.managers", "BlockManager"): _Table,
        ("pandas.core.indexes.base", "_new_Index"): _index,
        ("pandas.core.indexes.base", "Index"): _Table,
        ("pandas.core.indexes.range", "RangeIndex"): _Table,
    }
)


class _TableReader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        python3 = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        if (python3, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no table needs")
        return _KNOWN[python3, name]


def _recording(user: int, table: Any) -> Recording:
    axes, _, _, formats = table.state["_data"].state
    names = [str(name) for name in axes[0]["data"]]
    columns: dict[str, NDArray[Any]] = {}
    for block in formats["0.14.1"]["blocks"]:
        places = block["mgr_locs"]
        numbers = range(*places.indices(len(names))) if isinstance(places, slice) else places
        columns |= {names[number]: row for number, row in zip(numbers, block["values"], strict=True)}
    signals = np.stack([columns[name] for name in SIGNALS], axis=1).astype(np.float32)
    labels = columns[LABEL].astype(np.int64)
    if labels.shape != signals.shape[:1] or not np.isfinite(signals).all():
        raise ValueError(f"{len(labels)} labels for signals {signals.shape}, or a sample that is no number")
    return Recording(user, signals, labels)
