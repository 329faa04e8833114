"""Plain FedAvg with an uplink between the clients and the mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from federation import Federation
from uplink import Uplink

from slimfleet.compression.types import Tensors


@dataclass(frozen=True, slots=True)
class Round:
    """What one round sent and reached."""

    accuracy: float | None
    """Of the running mean of the global models, on all test images; None where it was not measured."""
    uplink_bytes: int
    """Sum of the lengths of all payloads."""
    nmse: float
    """Mean over the clients: squared error of the payload over squared norm of what it was to carry."""
    residual: float
    """Mean over the clients: norm of what is left unsent over the norm of the update itself."""


def fedavg(federation: Federation, uplink: Uplink) -> Iterator[Round]:
    """Train round by round; the mean weighs a client by its number of images."""
    weights, settings = federation.start, federation.settings
    mean = weights
    for number in range(1, settings.rounds + 1):
        clients = federation.chosen(number)
        sent = [uplink.send(c, number, federation.update(weights, c, number)) for c in clients]
        weights = _moved(weights, [s.decoded for s in sent], [len(federation.data[c]) for c in clients])
        mean = _nearer(mean, weights, max(1 / number, settings.newest_share))
        yield Round(
            accuracy=federation.accuracy(mean) if settings.measures(number) else None,
            uplink_bytes=sum(len(s.payload) for s in sent),
            nmse=float(np.mean([s.nmse for s in sent])),
            residual=float(np.mean([s.residual for s in sent])),
        )


def _moved(weights: Tensors, updates: list[Tensors], counts: list[int]) -> Tensors:
    shares = np.array(counts, np.float64) / sum(counts)
    return {
        name: (
            value + sum(s * u[name].astype(np.float64) for s, u in zip(shares, updates, strict=True))
        ).astype(np.float32)
        for name, value in weights.items()
    }


def _nearer(mean: Tensors, weights: Tensors, share: float) -> Tensors:
    return {name: value + np.float32(share) * (weights[name] - value) for name, value in mean.items()}
