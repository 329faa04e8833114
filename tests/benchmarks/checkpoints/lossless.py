"""Lossless: bytes and speed of a whole checkpoint, ours and each peer's."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch
from safetensors.torch import save_file

from slimfleet.compression.packing import Lossless, pack_file, unpack_file

from .peers import Peer
from .weights import Source, State, as_dtype

T = TypeVar("T")

OURS = "slimfleet"
TURNS, LONG_S = 50, 2.0
"""Turns end after so many, or after so long in all."""
DTYPES = {"float32": (torch.float32, 4), "bfloat16": (torch.bfloat16, 2)}


@dataclass(frozen=True)
class Result:
    """One compressor on one checkpoint."""

    bytes: int
    pack_mb_per_s: float
    """1e6 bytes of tensors a second of processor time of all threads; the best turn."""
    unpack_mb_per_s: float


@dataclass(frozen=True)
class Case:
    """One checkpoint."""

    name: str
    dtype: str
    nbytes: int
    """Of its float tensors."""
    results: dict[str, Result]


def measure(source: Source, dtype: str, peers: Sequence[Peer]) -> Case:
    """Ours file to file, whole with names and index; peers in memory, the float tensors alone and as one."""
    state = as_dtype(source.load(), DTYPES[dtype][0])
    floats = [tensor for tensor in state.values() if tensor.is_floating_point()]
    width = DTYPES[dtype][1]
    data = b"".join(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() for tensor in floats)
    results = {OURS: _ours(state)}
    for peer in peers:
        packed, pack_s = _timed(lambda peer=peer: peer.pack(data, width))
        again, unpack_s = _timed(lambda peer=peer, packed=packed: peer.unpack(packed, width))
        assert again == data, f"{peer.name} does not give back what it was given"
        results[peer.name] = Result(len(packed), len(data) / 1e6 / pack_s, len(data) / 1e6 / unpack_s)
    return Case(source.name, dtype, len(data), results)


def _ours(state: State) -> Result:
    with TemporaryDirectory() as folder:
        plain, slim, again = (Path(folder) / name for name in ("a.safetensors", "a.slim", "b.safetensors"))
        save_file(state, plain)
        summary, pack_s = _timed(lambda: pack_file(plain, slim, Lossless()))
        _, unpack_s = _timed(lambda: unpack_file(slim, again))
        assert plain.stat().st_size == again.stat().st_size
        mb = summary.tensor_bytes / 1e6
        return Result(summary.bytes, mb / pack_s, mb / unpack_s)


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    best, taken = float("inf"), 0.0
    for _ in range(TURNS):
        began = time.process_time()
        result = work()
        seconds = time.process_time() - began
        best, taken = min(best, seconds), taken + seconds
        if taken > LONG_S:
            break
    return result, best
