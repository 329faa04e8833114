"""Training: steps with momentum, differences and roundings, to the bit.

The expected numbers are computed here in float32, one operation at a time. Where a product of the step is exact, as
with a learning rate that is a power of two, a machine that fuses it with the sum gets the same; elsewhere it may be one
unit in the last place off with every step, which `ulps` allows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from making.models import noise
from making.text import text_of
from making.writing import Document, Files, bits
from slimfleet.compression.codec.quantise.grid import Grid, Quantised, dequantise
from slimfleet.compression.difference import changed
from slimfleet.compression.schema import ModelSchema, TensorKind, TensorSpec

STEPS = 5


def training() -> Files:
    document = {"sgd": _sgd(), "differences": _differences(), "levels": _levels(), "halves": _halves()}
    return {"train.json": text_of(document)}


def _sgd() -> list[Document]:
    cases = []
    for rate, momentum, proximal, ulps in (
        (0.25, 0.0, 0.0, 0),
        (0.25, 0.9, 0.0, 0),
        (0.5, 0.5, 0.125, 0),
        (0.1, 0.9, 0.0, STEPS),
        (0.05, 0.9, 0.01, STEPS),
    ):
        start = np.abs(noise(24)) + np.float32(1)  # far from 0, where units in the last place shrink
        # Where every bit counts, gradients are so large that a bit of the momentum is one of the weights.
        scale = np.float32(0.125 if ulps else 8)
        gradients = [noise(24, 50 * (1 + step)) * scale for step in range(STEPS)]
        after = _steps(start, gradients, *map(np.float32, (rate, momentum, proximal)))
        cases.append(
            {
                "learning_rate": rate,
                "momentum": momentum,
                "proximal": proximal,
                "weight": bits(start),
                "gradients": [bits(each) for each in gradients],
                "expected": [bits(each) for each in after],
                "ulps": ulps,
            }
        )
    return cases


def _steps(
    start: NDArray[np.float32],
    gradients: list[NDArray[np.float32]],
    rate: np.float32,
    momentum: np.float32,
    proximal: np.float32,
) -> list[NDArray[np.float32]]:
    weight, buffer, after = start.copy(), None, []
    for gradient in gradients:
        pulled = gradient + proximal * (weight - start)
        buffer = pulled if buffer is None else momentum * buffer + pulled
        weight = weight - rate * buffer
        after.append(weight)
    return after


def _differences() -> list[Document]:
    unset = np.array([np.nan, np.inf, -np.inf, np.nan, np.nan, 1, 2, 3e38], np.float32)
    later = np.array([0.5, 0, -1e-30, np.nan, -3, np.nan, 2.5, -3e38], np.float32)
    numbers = np.array([0, 1, -(2**31), 2**31 - 1], np.int32)
    flags = np.array([True, True, False, False])
    made: list[tuple[TensorKind, np.ndarray, np.ndarray]] = [
        ("weight", noise(16) / np.float32(3), noise(16, 60) / np.float32(7)),
        ("buffer", noise(8) / np.float32(3), noise(8, 70) / np.float32(7)),
        ("buffer", unset, later),
        ("integer", numbers, numbers[::-1].copy()),
        ("integer", numbers.astype(np.int64), numbers.astype(np.int64) + 5),
        ("integer", np.array([250, 3], np.uint8), np.array([3, 250], np.uint8)),
        ("integer", flags, np.array([True, False, True, False])),
    ]
    return [
        {
            "kind": kind,
            "dtype": before.dtype.name,
            **{
                key: bits(a) if a.dtype.kind == "f" else [str(int(v)) for v in a]
                for key, a in (
                    ("before", before),
                    ("after", after),
                    ("expected", changed(after, before, kind)),
                )
            },
        }
        for kind, before, after in made
    ]


def _levels() -> list[Document]:
    levels = np.array([0, 1, -1, 2, -3, 7, 100, -1024, 32767], np.int32)
    cases: list[Document] = []
    for dtype in ("float32", "float16"):
        for unit in (np.float32(0.1) / 256, np.float32(1 / 3), np.float32(2.0**-120)):
            for offsets in ((), (37,), (-100, 5, 90)):
                spec = TensorSpec("w", (len(levels), 1), dtype, "weight")
                grid = Grid((float(unit),), offsets, 0)
                values = dequantise(Quantised({"w": levels.reshape(-1, 1)}, grid, {}), ModelSchema((spec,)))[
                    "w"
                ]
                cases.append(
                    {
                        "dtype": dtype,
                        "unit": bits(np.array([unit]))[0],
                        "offsets": list(offsets),
                        "levels": levels.tolist(),
                        "expected": bits(values.astype(np.float32)),
                    }
                )
    return cases


def _halves() -> list[Document]:
    values = np.array(
        [0, 1, -1.0005, 1.00048828125, 1.00146484375, 65504, -65519, 6e-8, 2.9e-8, 3e-8, 6.1e-5, 0.1, np.inf],
        np.float32,
    )
    return [{"values": bits(values), "expected": bits(values.astype(np.float16).astype(np.float32))}]
