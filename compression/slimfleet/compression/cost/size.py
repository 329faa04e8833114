"""Update size: a cheap formula for payload bytes, corrected by the payloads that arrived."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from math import exp, fsum, log
from typing import Any

from slimfleet.compression.cost.distortion import bits_per_value


@dataclass(frozen=True, slots=True, order=True)
class SizeObservation:
    """A payload that arrived: what was planned, and `len(payload)`."""

    nmse: float
    """Error that the plan allowed, above 0."""
    parameters: int
    """Number of trained parameters of the shrunk model."""
    payload_bytes: int


@dataclass(frozen=True, slots=True)
class UpdateSizeModel:
    """Predicted uplink bytes, corrected per planned error and, where one is new, by the mean of all."""

    overhead_bytes: int = 128
    """Header, tables and the statistics of a few batch norms, whatever the plan."""
    cells: Mapping[float, float] = field(default_factory=dict)
    """Planned error -> natural log of actual/predicted bytes."""
    overall: float = 0.0
    """The same over all errors."""
    error: float = 0.0
    """Typical relative error of the corrected prediction (running mean of |log ratio|); 0 at first."""
    observed: int = 0
    """Number of payloads learned from."""
    gain: float = 0.3
    """Weight of a new round against the past, 0 < gain <= 1."""

    def bytes_per_parameter(self, nmse: float) -> float:
        """Corrected bytes that each parameter adds to the payload."""
        return bits_per_value(nmse) / 8 * exp(self._correction(nmse))

    def predict(self, parameters: int, nmse: float) -> float:
        """Predicted bytes of a payload."""
        return self.overhead_bytes + parameters * self.bytes_per_parameter(nmse)

    def learn(self, observations: Iterable[SizeObservation]) -> UpdateSizeModel:
        """The model after one round's payloads. Their order does not matter: sums are exact (math.fsum)."""
        seen = sorted(observations)
        if not seen:
            return self
        cells, ratios = dict(self.cells), []
        for cell, members in groupby(seen, key=lambda o: o.nmse):
            of_cell = [self._log_ratio(o) for o in members]
            ratios += of_cell
            before = cells.get(cell)
            now = _mean(of_cell)
            cells[cell] = now if before is None else before + self.gain * (now - before)
        misses = [abs(ratio - self._correction(o.nmse)) for o, ratio in zip(seen, ratios, strict=True)]
        first = self.observed == 0
        return UpdateSizeModel(
            overhead_bytes=self.overhead_bytes,
            cells=cells,
            overall=_mean(ratios) if first else self.overall + self.gain * (_mean(ratios) - self.overall),
            # The first miss is that of the bare formula, which is not used again.
            error=_spread(ratios) if first else self.error + self.gain * (_mean(misses) - self.error),
            observed=self.observed + len(seen),
            gain=self.gain,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values; JSON keeps Python floats exactly."""
        return {
            "overhead_bytes": self.overhead_bytes,
            "cells": sorted(map(list, self.cells.items())),
            "overall": self.overall,
            "error": self.error,
            "observed": self.observed,
            "gain": self.gain,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> UpdateSizeModel:
        """Undo `to_json`."""
        cells = {float(nmse): float(value) for nmse, value in values["cells"]}
        return cls(**{**values, "cells": cells})

    def _correction(self, nmse: float) -> float:
        # Nothing is coded in plain float32: other errors teach nothing about it.
        return self.cells.get(nmse, self.overall if nmse else 0.0)

    def _log_ratio(self, seen: SizeObservation) -> float:
        """Log of the actual payload over the bare formula, the overhead taken off both."""
        bare = seen.parameters * bits_per_value(seen.nmse) / 8
        return log(max(seen.payload_bytes - self.overhead_bytes, 1) / bare)


def _mean(values: list[float]) -> float:
    return fsum(values) / len(values)


def _spread(values: list[float]) -> float:
    centre = _mean(values)
    return _mean([abs(value - centre) for value in values])
