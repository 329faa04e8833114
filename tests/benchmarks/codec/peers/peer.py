"""What a peer is, and how it is brought to a target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from curve import Point, bytes_at, nearest
from measure import Arrays, nmse
from numpy.typing import NDArray

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Peer:
    """A codec as two functions. Both ends know names and shapes; what else the decoder needs is in the bytes."""

    name: str
    encode: Callable[[Arrays, Any], bytes]
    decode: Callable[[bytes, Shapes], Arrays]
    settings: Sequence[Any] = ()
    """The points of a grid, by growing size; none: any positive number, an error grows with it."""


@dataclass(frozen=True, slots=True)
class AtTarget:
    """Bytes at a target (interpolated between settings where there are only some), and the nearest real point."""

    bytes: float | None
    point: Point


def shapes(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    """What both ends know."""
    return {name: array.shape for name, array in arrays.items()}


def at_targets(peer: Peer, arrays: Arrays, targets: Sequence[float]) -> dict[float, AtTarget]:
    """Every target: by secants where the setting is a number, from the whole grid otherwise."""
    if not peer.settings:
        found = {target: _solve(peer, arrays, target) for target in targets}
        return {target: AtTarget(point.bytes, point) for target, point in found.items()}
    points = [measure(peer, arrays, setting) for setting in peer.settings]
    return {target: AtTarget(bytes_at(points, target), nearest(points, target)) for target in targets}


def measure(peer: Peer, arrays: Arrays, setting: Any) -> Point:
    """Encode, decode, compare."""
    payload = peer.encode(arrays, setting)
    return Point(nmse(arrays, peer.decode(payload, shapes(arrays))), len(payload), setting)


def _solve(peer: Peer, arrays: Arrays, target: float, precision: float = 2e-3) -> Point:
    """A setting whose error is at most `target` and nearly that: secants of log error over log setting.

    An error that jumps over the range aimed at (0.2 %) gives the last setting below it.
    """

    def at(log_setting: float) -> tuple[float, Point]:
        point = measure(peer, arrays, float(np.exp(log_setting)))
        return float(np.log(point.nmse / target)) + precision / 2, point

    low = high = float(np.log(flat(arrays).std()))
    below, best = at(low)
    while below > 0:
        low -= 0.7
        below, best = at(low)
    above = below
    while above <= 0:
        high += 0.7
        above, _ = at(high)
    for _ in range(20):
        if -precision / 2 <= below <= 0:
            break
        share = float(np.clip(below / (below - above), 0.02, 0.98))
        middle = low + share * (high - low)
        error, point = at(middle)
        if error <= 0:
            low, below, best = middle, error, point
        else:
            high, above = middle, error
    return best


def flat(arrays: Arrays) -> NDArray[np.float32]:
    """All elements in order, float32."""
    return np.concatenate([array.ravel() for array in arrays.values()])


def unflat(values: NDArray[np.float32], known: Shapes) -> Arrays:
    """The arrays of all elements in order."""
    sizes = [int(np.prod(shape)) for shape in known.values()]
    parts = np.split(values, np.cumsum(sizes)[:-1])
    return {name: part.reshape(shape) for (name, shape), part in zip(known.items(), parts, strict=True)}
