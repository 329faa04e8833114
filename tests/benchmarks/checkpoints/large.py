"""A large checkpoint, made and thrown away: memory and time of packing it, beside one pass of reading and writing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CHUNK = 1 << 22
LAYERS, WIDTH, VOCABULARY = 9, 2048, 32_000
"""Of a Transformer of 2 GB in float32, whose largest tensor has 262 MB."""


@dataclass(frozen=True)
class Run:
    """One command."""

    what: str
    seconds: float
    processor_s: float
    peak_bytes: int
    file_bytes: int


def shapes(
    layers: int = LAYERS, width: int = WIDTH, words: int = VOCABULARY
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a Transformer's tensors."""
    yield "embedding.weight", (words, width)
    for layer in range(layers):
        for name in ("query", "key", "value", "out"):
            yield f"layers.{layer}.{name}.weight", (width, width)
        yield f"layers.{layer}.up.weight", (4 * width, width)
        yield f"layers.{layer}.down.weight", (width, 4 * width)
        yield f"layers.{layer}.norm.weight", (width,)


def make(path: Path, tensors: list[tuple[str, tuple[int, ...]]]) -> None:
    """Write a safetensors file of normally distributed float32, each row of a scale of its own."""
    header, at = {}, 0
    for name, shape in tensors:
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, shape in tensors:
            rows, columns = (shape[0], int(np.prod(shape[1:]))) if len(shape) > 1 else (1, shape[0])
            step = max(CHUNK // columns, 1)
            for start in range(0, rows, step):
                count = min(step, rows - start)
                values = rng.standard_normal((count, columns), np.float32)
                values *= rng.uniform(0.01, 0.05, (count, 1)).astype(np.float32)
                file.write(values.data)


def one_pass(path: Path) -> Run:
    """Read the file and write it, to the disk."""
    copy = path.with_suffix(".copy")
    began, before = time.perf_counter(), time.process_time()
    with path.open("rb") as source, copy.open("wb") as target:
        while data := source.read(CHUNK):
            target.write(data)
        target.flush()
        os.fsync(target.fileno())
    seconds = time.perf_counter() - began
    copy.unlink()
    return Run("read and write", seconds, time.process_time() - before, 0, path.stat().st_size)


def command(what: str, arguments: list[str], made: Path) -> Run:
    """Run `slimfleet-compress`, and ask the system for what it took; `made` is the file that it writes."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "slimfleet.compression.cli", *arguments, "--quiet"])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{arguments} ended with {process.returncode}"
    seconds = time.perf_counter() - began
    return Run(what, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, made.stat().st_size)


def measure(folder: Path, tensors: list[tuple[str, tuple[int, ...]]]) -> list[Run]:
    """Make the checkpoint in `folder`, run every command on it, and delete all again."""
    plain, slim, again = (folder / name for name in ("large.safetensors", "large.slim", "again.safetensors"))
    try:
        make(plain, tensors)
        runs = [one_pass(plain)]
        for what, how in (
            ("pack --lossless", ["--lossless"]),
            ("pack --nmse 1e-3 --preset fast", ["--nmse", "1e-3", "--preset", "fast"]),
            ("pack --nmse 1e-3", ["--nmse", "1e-3"]),
        ):
            runs.append(command(what, ["pack", str(plain), *how, "-o", str(slim)], slim))
            print(runs[-1], flush=True)
        runs.append(command("unpack of that", ["unpack", str(slim), "-o", str(again)], again))
        return runs
    finally:
        for path in (plain, slim, again, plain.with_suffix(".copy")):
            path.unlink(missing_ok=True)
