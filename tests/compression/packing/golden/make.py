"""Write the golden slim files. Only a new format version may change them.

python tests/compression/packing/golden/make.py
"""

from pathlib import Path

import numpy as np

from slimfleet.compression.packing import Codebook, Entry, Lossless, OnGrid, SlimFile, ToError, write_slim

HERE = Path(__file__).parent
FIELDS = {"architecture": '{"layers": [3, 5]}', "note": "größer\n"}


def noise(count: int, seed: int) -> np.ndarray:
    """Multiples of 1 / 1024 from integers, so that every machine starts from the same ones."""
    whole = np.arange(1 + seed, count + 1 + seed, dtype=np.int64) * 48271 % 2147483647 % 2001 - 1000
    return whole.astype(np.float32) / 1024


def bell(count: int, seed: int) -> np.ndarray:
    """Like a bell curve, nearly."""
    return sum(noise(count, seed + 7919 * i) for i in range(4)) / np.float32(16)


def exact() -> list[Entry]:
    """What is coded by integers alone: every machine writes the same file."""
    sparse = np.where(noise(900, 3) > 0.8, bell(900, 3), 0).astype(np.float32)
    steps = np.array([0.25, 0.125, 0.5], np.float32) / 3
    levels = np.rint(bell(3 * 40, 11) * 200).reshape(3, 5, 8)
    book = np.array([0.5, -0.25, 0, 1.5], np.float32)
    which = (np.abs(noise(600, 5)) * 4).astype(np.uint8).reshape(20, 30)
    return [
        Entry("float32", bell(3000, 1).reshape(30, 100)),
        Entry("float64", bell(20, 2).astype(np.float64) / 3),
        Entry("float16", bell(300, 2).astype(np.float16)),
        Entry("bfloat16", (bell(300, 4).view(np.uint32) >> 16).astype(np.uint16), Lossless(), "bfloat16"),
        Entry("complex", bell(40, 6).view(np.complex64)),
        Entry("sparse", sparse.reshape(30, 30)),
        Entry("positions", np.arange(512).reshape(1, 512)),
        Entry("counter", np.array(300)),
        Entry("flags", noise(77, 1) > 0),
        Entry("empty", np.zeros((0, 3), np.int16)),
        Entry("rounded", bell(200, 8), ToError(1e-3)),
        Entry("by channel", levels.astype(np.float32) * steps[:, None, None], OnGrid(steps)),
        Entry("by tensor", np.rint(noise(500, 9) * 3000).astype(np.float32) * np.float32(0.1), OnGrid(0.1)),
        Entry("codebook", book[which], Codebook(book, which)),
        Entry("tied", bell(3000, 1).reshape(30, 100)),
    ]


def searched() -> list[Entry]:
    """What a search over sums of floats has chosen the steps of: other machines may write other files."""
    return [
        Entry("kernel", bell(8 * 4 * 9, 1).reshape(8, 4, 3, 3), ToError(0.02)),
        Entry("matrix", bell(1200, 2).reshape(30, 40), ToError(0.005)),
        Entry(
            "half",
            (bell(400, 3).view(np.uint32) >> 16).astype(np.uint16).reshape(20, 20),
            ToError(0.01),
            "bfloat16",
        ),
    ]


def write(folder: Path) -> None:
    """All of them, and the bytes of their tensors one after the other."""
    write_slim(folder / "exact.slim", exact(), FIELDS)
    write_slim(folder / "small.slim", searched(), FIELDS)
    write_slim(folder / "fast.slim", searched(), FIELDS, preset="fast")
    for path in folder.glob("*.slim"):
        with SlimFile.open(path) as slim:
            path.with_suffix(".bytes").write_bytes(b"".join(slim.held(name).tobytes() for name in slim.names))


if __name__ == "__main__":
    write(HERE)
