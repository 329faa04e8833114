"""FedScale's devices: how fast they are, how fast their links, and when they are on their chargers.

From quantiles that ship with slimfleet (`fedscale_like.json`, with their source), or from FedScale's own files (Lai et
al. 2022, arXiv 2105.11367). Those are pickles: they are read by an unpickler that makes plain containers and numbers,
and nothing else.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.errors import BadInput
from slimfleet.simulations.battery import Charger
from slimfleet.simulations.traces import Traces

__all__ = ["LIKE", "Capacity", "read_capacities", "read_traces", "sessions"]

LIKE = "fedscale-like"
"""The name, in place of a path, of the quantiles that ship."""

BYTES_PER_S_PER_KBPS = 125.0
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Capacity:
    """Speeds and rates of devices. Quantiles are drawn from; the devices of a file are taken in turn."""

    compute_ms: Floats
    """Of one example, (m,): what counts is the ratio to the median."""
    bytes_per_s: Floats
    """Of a link, both ways, (m,)."""
    shares: tuple[Floats, Floats] | None = None
    """At which shares of the devices quantiles stand; None where the values are those of single devices."""

    def of(self, number: int, speed: float, network: float) -> tuple[float, float]:
        """The speed of a device in speeds of the median device, and the rate of its link, bytes/s, from its draws over
        0..1."""
        if self.shares is None:
            compute_ms, rate = (
                self.compute_ms[number % len(self.compute_ms)],
                self.bytes_per_s[number % len(self.bytes_per_s)],
            )
            middle = np.median(self.compute_ms)
        else:
            compute_ms, rate = (
                np.exp(np.interp(draw, shares, np.log(values)))
                for draw, shares, values in zip(
                    (speed, network), self.shares, (self.compute_ms, self.bytes_per_s), strict=True
                )
            )
            middle = np.interp(0.5, self.shares[0], self.compute_ms)
        return float(middle / compute_ms), float(rate)


def read_capacities(source: str) -> Capacity:
    """Those of `LIKE`, or of a file `client_device_capacity`. Raises BadInput where that cannot be read."""
    if source == LIKE:
        shares, compute_ms = _quantiles("compute_ms")
        link_shares, kbps = _quantiles("throughput_kbps")
        return Capacity(compute_ms, kbps * BYTES_PER_S_PER_KBPS, (shares, link_shares))
    devices = _entries(source, ("computation", "communication"))
    figures = np.array(
        [[_number(source, each[key]) for key in ("computation", "communication")] for each in devices]
    )
    if not (figures > 0).all():
        raise BadInput(f"{source}: a computation or communication is not above 0")
    return Capacity(figures[:, 0], figures[:, 1] * BYTES_PER_S_PER_KBPS)


def sessions(draws: Floats) -> Charger:
    """Sessions on the charger as FedScale's devices have them, the same over and over, from draws (3, n) over 0..1: the
    share of the time, the length of a session, and the moment at which one begins."""
    share, length = (
        np.exp(np.interp(draw, shares, np.log(values)))
        for draw, (shares, values) in zip(
            draws[:2], (_quantiles("online_share"), _quantiles("session_s")), strict=True
        )
    )
    period_s = length / share
    return Charger(draws[2] * period_s, period_s, length)


def read_traces(source: str, devices: int) -> Traces:
    """When so many devices are on their chargers, by a file `client_behave_trace`, whose devices are taken in turn.

    Raises BadInput where that cannot be read.
    """
    entries = _entries(source, ("active", "inactive", "finish_time"))[:devices]
    windows = [_window(source, each) for each in entries]
    return Traces.of(windows, np.arange(devices) % len(windows))


def _window(source: str, entry: Mapping[str, Any]) -> tuple[Floats, Floats, float]:
    """Starts and ends of one device's sessions, and after how long they repeat."""
    starts, ends = (
        np.array([_number(source, t) for t in entry[key]], np.float64) for key in ("active", "inactive")
    )
    finish_s = _number(source, entry["finish_time"])
    pairs = min(len(starts), len(ends))
    starts, ends = starts[:pairs], np.minimum(ends[:pairs], finish_s)
    if finish_s <= 0 or (starts < 0).any() or (ends < starts).any() or (starts[1:] < ends[:-1]).any():
        raise BadInput(
            f"{source}: a trace is not a row of sessions, each after the one before, within its finish_time"
        )
    return starts, ends, finish_s


def _quantiles(name: str) -> tuple[Floats, Floats]:
    """Shares and values of a distribution that ships."""
    points = _shipped()[name]
    return np.array([float(share) for share in points]), np.array(list(points.values()), np.float64)


@cache
def _shipped() -> Mapping[str, Mapping[str, float]]:
    text = files("slimfleet.simulations").joinpath("fedscale_like.json").read_text(encoding="utf-8")
    tables: Mapping[str, Mapping[str, float]] = json.loads(text)
    return tables


def _entries(source: str, keys: Sequence[str]) -> list[Mapping[str, Any]]:
    """The devices of one of FedScale's files, in its order, each with these keys."""
    try:
        with Path(source).open("rb") as file:
            found = _Plain(file).load()
    except OSError as error:
        raise BadInput(f"cannot read {source}: {error.strerror or error}") from error
    except Exception as error:
        raise BadInput(f"{source} is no pickle of FedScale's: {error}") from error
    entries = list(found.values()) if isinstance(found, dict) else []
    if not entries or any(
        not isinstance(each, dict) or not all(key in each for key in keys) for each in entries
    ):
        raise BadInput(f"{source} is no table of devices with {', '.join(keys)}")
    return entries


def _number(source: str, value: Any) -> float:
    if not isinstance(value, int | float) or not isfinite(value):
        raise BadInput(f"{source}: {value!r:.40} is no number")
    return float(value)


class _Kind:
    """Stands for the dtype of a numpy scalar in a pickle."""

    def __init__(self, name: str, *rest: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        """Byte order and the like, which plain numbers of these files do not need."""


def _scalar(kind: _Kind, data: bytes) -> float | int:
    if kind.name not in ("f4", "f8", "i4", "i8", "u4", "u8"):
        raise pickle.UnpicklingError(f"it holds a number of the kind {kind.name!r:.20}")
    value: float | int = np.frombuffer(data, f"<{kind.name}", 1)[0].item()
    return value


class _Plain(pickle.Unpickler):
    """Makes dicts, lists, texts and numbers."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-ins of numpy's scalars; everything else is refused."""
        if (module, name) == ("numpy", "dtype"):
            return _Kind
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "scalar":
            return _scalar
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")
