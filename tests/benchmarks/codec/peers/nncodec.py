"""NNCodec 2.1.3, Fraunhofer's implementation of ISO/IEC 15938-17: trellis quantiser and context-adaptive coder.

Its own defaults (dependent quantisation, row skipping, parameter optimisation, biases nearly lossless), except:

- `lambda_scale`, the weight of the rate in its trellis, is swept: its default, 0, costs a third more bytes at NMSE 0.3;
- `qp_density` is 4, 16 steps an octave where the default has 4, so that the grid is no handicap. Size and error at
  equal steps are the same to a byte.

What is not a weight is sent nearly losslessly ("fine", the default) or at a quarter of the weights' step ("quarter",
`nonweight_qp=None`), the one of fewer bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from curve import Point, bytes_at, nearest
from measure import Arrays, nmse
from nncodec_stubs import import_nncodec

LAMBDAS = (0.0, 0.5, 1.0, 1.5, 2.0)
DENSITY = 4
PER_OCTAVE = 1 << DENSITY
_DEFAULT_BIASES = -75 * PER_OCTAVE // 4

Biases = Literal["fine", "quarter"]


@dataclass(frozen=True, slots=True)
class Tuned:
    """The fewest bytes over all lambdas at a target, and a real point next to it."""

    bytes: float
    point: Point


@dataclass(frozen=True, slots=True)
class Setting:
    """One operating point: the step is about `2 ** (qp / 16)`."""

    qp: int
    lambda_scale: float
    biases: Biases = "fine"

    def words(self) -> str:
        """For a reader."""
        biases = "nearly lossless biases" if self.biases == "fine" else "biases at a quarter of the step"
        return f"lambda {self.lambda_scale:g}, qp {self.qp / PER_OCTAVE:.2f} octaves, {biases}"


def encode(arrays: Arrays, setting: Setting) -> bytearray:
    """The bitstream, names and shapes in it."""
    compress, _ = import_nncodec()
    bitstream: bytearray = compress(
        arrays,
        bitstream_path=None,
        return_bitstream=True,
        qp=setting.qp,
        qp_density=DENSITY,
        nonweight_qp=_DEFAULT_BIASES if setting.biases == "fine" else None,
        lambda_scale=setting.lambda_scale,
        use_dq=True,
        row_skipping=True,
    )
    return bitstream


def decode(bitstream: bytearray) -> Arrays:
    """The arrays by name."""
    _, decompress = import_nncodec()
    decoded: Arrays = decompress(bitstream)
    return decoded


def measure(arrays: Arrays, setting: Setting) -> Point:
    """Encode, decode, compare."""
    bitstream = encode(arrays, setting)
    return Point(nmse(arrays, decode(bitstream)), len(bitstream), setting)


def tune(arrays: Arrays, targets: Sequence[float]) -> dict[float, Tuned]:
    """The best lambda and treatment of biases for every target; only the lambdas that won are tried with both."""
    tuned = _best(sweep(arrays, targets, LAMBDAS, "fine"), targets)
    if any(array.ndim < 2 for array in arrays.values()):
        lambdas = sorted({found.point.setting.lambda_scale for found in tuned.values()})
        other = _best(sweep(arrays, targets, lambdas, "quarter"), targets)
        tuned = {
            target: min(tuned[target], other[target], key=lambda found: found.bytes) for target in targets
        }
    return tuned


def _best(swept: dict[float, list[Point]], targets: Sequence[float]) -> dict[float, Tuned]:
    best = {}
    for target in targets:
        sizes = {scale: bytes_at(points, target) for scale, points in swept.items()}
        reached = {scale: size for scale, size in sizes.items() if size is not None}
        scale = min(reached, key=lambda s: reached[s])
        best[target] = Tuned(reached[scale], nearest(swept[scale], target))
    return best


def sweep(
    arrays: Arrays, targets: Sequence[float], lambdas: Sequence[float], biases: Biases
) -> dict[float, list[Point]]:
    """For every lambda the points tried, among them for every target the two neighbouring qp around it."""
    values = np.concatenate([array.ravel() for array in arrays.values()])
    start = round(PER_OCTAVE * float(np.log2(values.std())))
    points: dict[float, list[Point]] = {}
    for scale in lambdas:
        tried: dict[int, Point] = {}
        qp = start
        for target in targets:
            qp = _enclose(arrays, target, qp, tried, scale, biases)
        points[scale] = list(tried.values())
        start = min(tried, key=lambda qp: abs(tried[qp].nmse - targets[0]))
    return points


def _enclose(
    arrays: Arrays, target: float, start: int, tried: dict[int, Point], scale: float, biases: Biases
) -> int:
    """The largest qp whose error is at most `target`, by growing strides and bisection; the next is tried too."""

    def fits(qp: int) -> bool:
        if qp not in tried:
            tried[qp] = measure(arrays, Setting(qp, scale, biases))
        return tried[qp].nmse <= target

    low, stride = start, 2
    while not fits(low):
        low, stride = low - stride, 2 * stride
    high, stride = low + 1, 2
    while fits(high):
        low, high, stride = high, high + stride, 2 * stride
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
