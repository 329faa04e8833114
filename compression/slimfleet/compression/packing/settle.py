"""Settled levels: of values that lie on a grid, or in a codebook, already. Both are checked, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.codec.native.bindings import Levels
from slimfleet.compression.errors import BadInput
from slimfleet.compression.packing.codings import Codebook, OnGrid
from slimfleet.compression.packing.dtypes import Dtype, from_float32, to_float32
from slimfleet.compression.packing.records import MOST_CENTROIDS, WHOLE

LARGEST_INTEGER = 1 << 24
"""Of multiples of a step: whole numbers are exact in float32 up to here."""
_BLOCK = 1 << 20


def multiples(
    name: str, array: NDArray[Any], dtype: Dtype, coding: OnGrid
) -> tuple[NDArray[np.float32], int, Levels]:
    """The steps, their axis (or WHOLE) and the integers. Raises BadInput for values that are no multiples."""
    step = np.asarray(coding.step, np.float32)
    axis = WHOLE if step.ndim == 0 else coding.axis
    if not dtype.weights or step.shape != (() if axis == WHOLE else array.shape[axis : axis + 1]):
        raise BadInput(
            f"tensor {name!r}, {dtype.name}{list(array.shape)}, cannot lie on a grid of steps {list(step.shape)} "
            f"along axis {coding.axis}"
        )
    if not (np.isfinite(step) & (step > 0)).all():
        raise BadInput(f"tensor {name!r} has a step that is not positive and finite")
    levels = np.empty(array.shape, np.int32)
    for rows, steps in _rows(array, step, axis):
        values = to_float32(array[rows], dtype)
        with np.errstate(invalid="ignore", over="ignore"):
            whole = np.rint(values.astype(np.float64) / steps)
        if not (np.abs(whole) <= LARGEST_INTEGER).all():
            raise BadInput(f"tensor {name!r} holds NaN, or more than {LARGEST_INTEGER:,} steps")
        levels[rows] = whole
        again = from_float32(multiplied(levels[rows], steps), dtype)
        if not np.array_equal(to_float32(again, dtype).astype(array.dtype), _plain(array[rows], dtype)):
            raise BadInput(f"tensor {name!r} does not lie on the grid given: store it losslessly")
    return step, axis, levels


def multiplied(levels: Levels, steps: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32(integer) x step, rounded once. `steps` broadcasts."""
    return np.asarray(levels.astype(np.float32) * steps, np.float32)


def along(step: NDArray[np.float32], axis: int, dimensions: int) -> NDArray[np.float32]:
    """Steps in a shape that broadcasts over a tensor."""
    return step if axis == WHOLE else step.reshape(-1, *(1,) * (dimensions - 1 - axis))


def ranked(
    name: str, array: NDArray[Any], dtype: Dtype, coding: Codebook
) -> tuple[NDArray[Any], int, Levels]:
    """Centroids in ascending order, the index of the one nearest zero, and indices as differences from that.

    Raises BadInput where the codebook does not give the array.
    """
    centroids, indices = np.asarray(coding.centroids, dtype.held), np.asarray(coding.indices)
    fits = dtype.words == 1 and centroids.ndim == 1 and 0 < centroids.size <= MOST_CENTROIDS
    if not fits or indices.shape != array.shape or indices.dtype.kind != "u":
        raise BadInput(
            f"tensor {name!r}, {dtype.name}{list(array.shape)}, cannot have a codebook of {centroids.size:,} centroids "
            f"with {indices.dtype.name}{list(indices.shape)} indices"
        )
    if int(indices.max(initial=0)) >= centroids.size:
        raise BadInput(f"tensor {name!r} has an index beyond its {centroids.size:,} centroids")
    if not np.array_equal(centroids[indices].view(f"u{dtype.itemsize}"), array.view(f"u{dtype.itemsize}")):
        raise BadInput(f"tensor {name!r} holds other values than its codebook gives")
    used = np.unique(indices) if indices.size else np.zeros(1, np.intp)
    values = to_float32(centroids[used], dtype) if dtype.weights else centroids[used]
    order = used[np.argsort(values, kind="stable")]
    rank = np.zeros(centroids.size, np.int32)
    rank[order] = np.arange(order.size, dtype=np.int32)
    origin = int(np.argmin(np.abs(np.sort(values, kind="stable").astype(np.float64))))
    return centroids[order], origin, np.asarray(rank[indices] - np.int32(origin), np.int32, order="C")


def _rows(
    array: NDArray[Any], step: NDArray[np.float32], axis: int
) -> Iterator[tuple[Any, NDArray[np.float32]]]:
    """Blocks of a tensor with the steps of each, so that nothing large is made of them."""
    shaped = along(step, axis, array.ndim)
    if array.ndim == 0 or not array.size:
        yield (...), shaped
        return
    many = max(_BLOCK * array.shape[0] // array.size, 1)
    for start in range(0, array.shape[0], many):
        rows = slice(start, start + many)
        yield rows, shaped[rows] if axis == 0 else shaped


def _plain(array: NDArray[Any], dtype: Dtype) -> NDArray[Any]:
    return to_float32(array, dtype).astype(array.dtype) if dtype.name == "bfloat16" else array
