"""Slim files for the fuzzer: honest ones, and how an input stands for a file.

An input is the length of the index (u16), the index as it is before it is deflated, and the sections. The file that it
stands for has the checksums that an honest one would have, and whatever the index says of a section's is right, so that
the decoders behind them are reached.
"""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np

from slimfleet.compression.packing import (
    Codebook,
    Entry,
    Lossless,
    OnGrid,
    SlimFile,
    ToError,
    ToRate,
    planes,
    quantiser,
    reader,
    sections,
    write_slim,
)
from slimfleet.compression.packing.layout import HEAD, TAIL, head_bytes, tail_bytes
from slimfleet.compression.types import Tensors

MOST_BYTES = 1 << 18
"""Of the tensors in a file."""


def entries() -> list[Entry]:
    """Every coding, and shapes that are awkward for it."""
    rng = np.random.default_rng(0)
    weights = rng.laplace(0, 0.1, (18, 30)).astype(np.float32)
    book = np.array([0, 0.1, -0.2, 0.7], np.float32)
    which = rng.integers(0, 4, (9, 8)).astype(np.uint8)
    steps = np.array([0.25, 0.5, 0.125], np.float32)
    levels = rng.integers(-9, 9, (3, 5, 2)).astype(np.float32)
    return [
        Entry("plain", weights[:3]),
        Entry("sparse", np.where(weights > 0.1, weights, 0).astype(np.float32)),
        Entry("double", rng.normal(0, 1, 5)),
        Entry("brain", (weights.view(np.uint32) >> 16).astype(np.uint16), ToError(0.01), "bfloat16"),
        Entry("matrix", weights, ToError(0.02)),
        Entry("kernel", rng.laplace(0, 0.1, (4, 8, 3, 3)).astype(np.float32), ToRate(2)),
        Entry("vector", weights[0], ToError(0.02)),
        Entry("channels", levels * steps[:, None, None], OnGrid(steps)),
        Entry("grid", np.rint(weights * 300) * np.float32(0.25), OnGrid(0.25)),
        Entry("book", book[which], Codebook(book, which)),
        Entry("complex", weights[1].view(np.complex64)),
        Entry("positions", np.arange(70)),
        Entry("flags", weights[2] > 0, Lossless()),
        Entry("empty", np.zeros((0, 3), np.float32)),
        Entry("tied", weights[:3]),
    ]


@contextmanager
def without_native() -> Iterator[None]:
    """As on a machine that has no native coder."""
    modules, honest = (planes, sections, quantiser), planes.load
    for module in modules:
        module.load = lambda: None
    try:
        yield
    finally:
        for module in modules:
            module.load = honest


def seeds() -> list[bytes]:
    """One input of all entries under every preset and without the native coder, and one for each entry."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.slim"
        made = []
        for preset in ("small", "fast"):
            write_slim(path, entries(), {"note": "text"}, preset=preset)
            made.append(input_of(path.read_bytes()))
        for entry in entries():
            write_slim(path, [entry])
            made.append(input_of(path.read_bytes()))
        with without_native():
            write_slim(path, entries())
            made.append(input_of(path.read_bytes()))
    return made


def input_of(file: bytes) -> bytes:
    """The input that stands for a file."""
    stored = TAIL.unpack(file[-TAIL.size :])[0]
    end = len(file) - TAIL.size - stored
    index = zlib.decompress(file[end : end + stored], -15)
    return len(index).to_bytes(2, "little") + index + file[HEAD.size : end]


def file_of(data: bytes) -> bytes:
    """The file that an input stands for."""
    length = int.from_bytes(data[:2], "little")
    index, body = data[2 : 2 + length], data[2 + length :]
    packed = zlib.compressobj(1, zlib.DEFLATED, -15)
    stored = packed.compress(index) + packed.flush()
    return head_bytes() + body + stored + tail_bytes(stored, len(index))


class Agreeable:
    """Differs from nothing."""

    def __ne__(self, other: object) -> bool:
        return False


@contextmanager
def agreeing() -> Iterator[None]:
    """With the checksum of every section right."""
    honest = reader.xxhash
    reader.xxhash = SimpleNamespace(xxh3_64_intdigest=lambda data: Agreeable())
    try:
        yield
    finally:
        reader.xxhash = honest


def decoded(data: bytes) -> Tensors:
    """The tensors of an input. Raises PayloadError."""
    with TemporaryDirectory() as folder, agreeing():
        path = Path(folder) / "a.slim"
        path.write_bytes(file_of(data))
        with SlimFile.open(path, most_bytes=MOST_BYTES) as slim:
            return {name: slim.tensor(name) for name in slim.names}


def finite(data: bytes) -> list[np.ndarray]:
    """The tensors that have to be finite, whatever the input: those on a grid."""
    with TemporaryDirectory() as folder, agreeing():
        path = Path(folder) / "a.slim"
        path.write_bytes(file_of(data))
        with SlimFile.open(path, most_bytes=MOST_BYTES) as slim:
            return [
                slim.tensor(name) for name in slim.names if slim.describe(name).coding in ("grid", "on-grid")
            ]
