"""Error and time: the two things measured of every codec, in one way for all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.float32]]


def nmse(arrays: Mapping[str, NDArray[np.float32]], decoded: Mapping[str, NDArray[np.float32]]) -> float:
    """Squared error over squared norm, over all arrays together, in float64."""
    error = energy = 0.0
    for name, array in arrays.items():
        exact = array.astype(np.float64)
        error += float(np.sum((exact - decoded[name]) ** 2))
        energy += float(np.sum(exact**2))
    return error / energy


def size(arrays: Mapping[str, NDArray[np.float32]]) -> int:
    """Number of elements."""
    return sum(array.size for array in arrays.values())


def megabytes(arrays: Mapping[str, NDArray[np.float32]]) -> float:
    """1e6 bytes of float32: what a speed is counted in."""
    return 4e-6 * size(arrays)


def interleaved(actions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median processor seconds of each action, all of which run on one thread.

    They take turns, so that a noisy machine slows all of them alike, and the time of other processes does not count.
    One unmeasured turn first: tables, caches and imports are warm.
    """
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(rounds + 1):
        for name, action in actions.items():
            start = time.process_time()
            action()
            if turn:
                seconds[name].append(time.process_time() - start)
    return {name: float(np.median(taken)) for name, taken in seconds.items()}
