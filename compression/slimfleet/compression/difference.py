"""Difference: what training changed of a tensor, and such changes applied.

Floats are subtracted. Flags change by exclusive or, counters by a difference that wraps around in their type. From NaN
and infinity nothing can be subtracted: the change of such an element is its new value, 0 where it stays as it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.schema import TensorKind

LEAST_VALUE = 2.0**-24
"""Magnitude of what stands for a new value of 0, and of smaller ones; the least that float16 can hold."""

_LARGEST = float(np.finfo(np.float32).max)


def changed(now: NDArray[Any], before: NDArray[Any], kind: TensorKind) -> NDArray[Any]:
    """What training changed of a tensor, in its dtype.

    A buffer's change is always finite: where training made NaN or infinity of a number, it counts as unchanged. A
    weight's is not finite where training has diverged.
    """
    if now.dtype == np.bool_:
        return np.asarray(now ^ before)
    with np.errstate(over="ignore", invalid="ignore"):
        change = np.asarray(now - before)
        if kind == "buffer" and not np.isfinite(change).all():
            wide = now.astype(np.float64) - before
            change = np.where(unset(before), _set(now), _clipped(wide, now.dtype))
    return np.asarray(change, now.dtype)


def moved(before: NDArray[Any], change: NDArray[np.float64]) -> NDArray[Any]:
    """The float tensor `before` after a change, in its dtype, within what the dtype and the wire can hold."""
    with np.errstate(invalid="ignore"):
        after = _clipped(before + change, before.dtype)
    started = unset(before)
    if started.any():
        after = np.where(started, np.where(change == 0, before, _clipped(change, before.dtype)), after)
    return np.asarray(after, before.dtype)


def unset(values: NDArray[Any]) -> NDArray[np.bool_]:
    """The elements that a change sets rather than moves: NaN and infinity."""
    return np.asarray(~np.isfinite(values)) if values.dtype.kind == "f" else np.zeros(values.shape, np.bool_)


def _set(now: NDArray[Any]) -> NDArray[np.float64]:
    """What sets an element to its value `now`; 0 where that is not finite."""
    wide = now.astype(np.float64)
    least = np.copysign(LEAST_VALUE, wide)
    return np.where(np.isfinite(wide), np.where(np.abs(wide) < LEAST_VALUE, least, wide), 0.0)


def _clipped(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Values within the range of `dtype` and of the wire; 0 for what is not finite."""
    limit = min(float(np.finfo(dtype).max), _LARGEST)
    return np.asarray(np.clip(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0), -limit, limit))
