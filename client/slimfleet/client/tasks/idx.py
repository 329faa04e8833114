"""Reader of IDX files, the format of MNIST and Fashion-MNIST."""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.errors import BadInput

UNSIGNED_BYTE = 0x08


def find_idx(folder: Path, name: str) -> Path | None:
    """The file `name` in `folder`, plain or with `.gz`; None when neither is there."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, plain or gzipped, into a uint8 array with that many dimensions.

    Layout (LeCun's MNIST page): two zero bytes, the type, the number of dimensions, each dimension as a
    big-endian 32-bit integer, then the bytes in row-major order. Raises BadInput naming the file when it
    cannot be read, is not such a file, or is shorter or longer than its header says.
    """
    content = _content(path)
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes([0, 0, UNSIGNED_BYTE, dimensions]):
        raise BadInput(
            f"{path} is not an IDX file of unsigned bytes in {dimensions} dimensions (it starts with "
            f"{content[:4].hex(' ') or 'nothing'}); get a fresh copy"
        )
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, offset=4))
    if len(content) - header != prod(shape):
        raise BadInput(
            f"{path} holds {len(content) - header} bytes of data, its header says {prod(shape)}; "
            f"get a fresh copy"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"{path} cannot be read: {error}") from error
