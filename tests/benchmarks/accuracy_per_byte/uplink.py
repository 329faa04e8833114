"""The way up: a compressor, with or without error feedback around it, and the residuals of all clients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from slimfleet.compression.codec import Encoded, add_residual, residual_after
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Payload, Tensors

Compressor = Callable[[Tensors, ModelSchema, np.random.Generator], Encoded]
"""An update to a payload, and exactly what its decoder makes of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What happens to a residual before it is used again."""

    decay: float = 1.0
    """Factor for every round that passed it by."""
    max_norm: float | None = None
    """Largest norm, in norms of the update that it is added to."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One payload, what it means, and how far that is from what was to be sent."""

    payload: Payload
    decoded: Tensors
    nmse: float
    residual: float


class Uplink:
    """One run's uplink. Residuals are built on the decoder's reconstruction and stay with their clients."""

    def __init__(
        self, schema: ModelSchema, compressor: Compressor, feedback: Feedback | None, seed: int
    ) -> None:
        self._schema, self._compressor, self._feedback, self._seed = schema, compressor, feedback, seed
        self._residuals: dict[int, tuple[int, Tensors]] = {}

    def send(self, client: int, round_number: int, update: Tensors) -> Sent:
        """Compress the update of `client`, which may have been silent for any number of rounds."""
        wanted = self._with_residual(client, round_number, update)
        rng = np.random.default_rng((self._seed, round_number, client))
        encoded = self._compressor(wanted, self._schema, rng)
        left = residual_after(wanted, encoded.decoded, self._schema)
        if self._feedback is not None:
            self._residuals[client] = round_number, left
        error = _norm(left)
        return Sent(
            encoded.payload,
            encoded.decoded,
            (error / max(_norm(wanted), 1e-30)) ** 2,
            error / max(_norm(update), 1e-30),
        )

    def _with_residual(self, client: int, round_number: int, update: Tensors) -> Tensors:
        if self._feedback is None or client not in self._residuals:
            return update
        last, residual = self._residuals[client]
        return add_residual(
            update,
            residual,
            age=round_number - last,
            decay=self._feedback.decay,
            max_norm=self._feedback.max_norm,
        )


def _norm(tensors: Tensors) -> float:
    return float(np.sqrt(sum(float(np.vdot(x, x)) for x in tensors.values())))
