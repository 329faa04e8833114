"""Other lossless compressors of weights, over all tensors of a checkpoint as one run of bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np


@dataclass(frozen=True)
class Peer:
    """One compressor: bytes and the width of an element to bytes, and back."""

    name: str
    pack: Callable[[bytes, int], bytes]
    unpack: Callable[[bytes, int], bytes]


def available() -> tuple[list[Peer], list[str]]:
    """The compressors that are installed, and what is missing of the others."""
    found, missing = [], []
    for make in (_zipnn, _zstd):
        try:
            found.append(make())
        except ImportError as error:
            missing.append(str(error))
    return found, missing


def _zipnn() -> Peer:
    from zipnn import ZipNN

    kinds = {4: "float32", 2: "bfloat16"}

    # It works in place on what it is given.
    def pack(data: bytes, width: int) -> bytes:
        return bytes(ZipNN(bytearray_dtype=kinds[width], threads=1).compress(bytearray(data)))

    def unpack(data: bytes, width: int) -> bytes:
        return bytes(ZipNN(bytearray_dtype=kinds[width], threads=1).decompress(bytearray(data)))

    return Peer(f"ZipNN {version('zipnn')}", pack, unpack)


def _zstd() -> Peer:
    import zstandard

    def pack(data: bytes, width: int) -> bytes:
        planes = np.frombuffer(data, np.uint8).reshape(-1, width).T
        return zstandard.ZstdCompressor(level=19, write_content_size=True).compress(planes.tobytes())

    def unpack(data: bytes, width: int) -> bytes:
        planes = np.frombuffer(zstandard.ZstdDecompressor().decompress(data), np.uint8).reshape(width, -1)
        return planes.T.tobytes()

    return Peer("zstd -19, byte planes", pack, unpack)
