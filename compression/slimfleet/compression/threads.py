"""Threads of torch: as many as some work needs, while it lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute on `count` threads, and afterwards on as many as before.

    With one thread the same seed gives the same bytes on every machine: sums of several threads are split differently.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Take numbers below 1e-38 for zero in this thread while the context lasts: processors are slow with them, and the
    moments that an optimiser keeps of weights without a gradient decay through all of them."""
    flushed = float(torch.tensor(1e-39) * 0.5) == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed)
