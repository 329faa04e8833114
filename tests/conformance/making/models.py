"""Models of the vectors: what the golden payloads have, every dtype, and one that comes in narrower widths."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.pruning.groups import ChannelGroup, Member
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors

GOLDEN_FOLDER = Path(__file__).parents[2] / "compression" / "golden"
GOLDEN: dict[str, Any] = run_path(str(GOLDEN_FOLDER / "make.py"))


def noise(count: int, start: int = 1) -> NDArray[np.float32]:
    """Values within +-1 from integers, the same on every machine."""
    numbers = np.arange(start, start + count, dtype=np.int64) * 48271 % 2147483647 % 2001 - 1000
    return numbers.astype(np.float32) / 1024


def odd_tensors() -> Tensors:
    """Every dtype and the shapes that are easily forgotten."""
    return {
        "half.weight": noise(40).reshape(4, 10).astype(np.float16),
        "double.weight": noise(12, 41).reshape(3, 4).astype(np.float64),
        "empty.weight": np.zeros((0, 3), np.float32),
        "scalar": np.array(-0.75, np.float32),
        "statistic": np.array([1e30, np.nan, -np.inf, 0.5], np.float32),
        "half.statistic": np.array([65504, -0.125, 6e-8], np.float16),
        "mask": np.array([True, False, True]),
        "small": np.array([-128, 127], np.int8),
        "count": np.array([2**63 - 1, -(2**63)], np.int64),
        "hash": np.array([2**64 - 1, 2**63, 5], np.uint64),
        "table": np.full((2, 2), 0.375, np.float32),
    }


def odd_schema() -> ModelSchema:
    trained = {"half.weight", "double.weight", "empty.weight", "scalar"}
    return ModelSchema.of(odd_tensors(), trained, ["table"])


def wide_tensors() -> Tensors:
    """Two layers of six channels, each of which owns two columns of the third."""
    return {
        "first.weight": noise(18).reshape(6, 3),
        "first.bias": noise(6, 20),
        "norm.running_mean": noise(6, 30),
        "norm.num_batches_tracked": np.array(7, np.int64),
        "last.weight": noise(36, 40).reshape(3, 12),
        "last.bias": noise(3, 80),
    }


def wide_schema() -> ModelSchema:
    trained = {"first.weight", "first.bias", "last.weight", "last.bias"}
    return ModelSchema.of(wide_tensors(), trained)


def wide_groups() -> tuple[ChannelGroup, ...]:
    one, two = np.arange(6).reshape(6, 1), np.arange(12).reshape(6, 2)
    members = (
        Member("first.weight", 0, one),
        Member("first.bias", 0, one),
        Member("norm.running_mean", 0, one),
        Member("last.weight", 1, two),
    )
    return (ChannelGroup("first", 6, members, min_channels=2),)


SCHEMAS: dict[str, ModelSchema] = {
    "small": GOLDEN["schema"](),
    "large": GOLDEN["large_schema"](),
    "frozen": GOLDEN["frozen_schema"](),
    "moving": GOLDEN["frozen_schema"]().moving,
    "odd": odd_schema(),
    "odd update": odd_schema().moving,
    "wide": wide_schema(),
}
GROUPS: dict[str, tuple[ChannelGroup, ...]] = {"wide": wide_groups()}
