"""How many bytes an update will take: a cheap formula, and what it learns from the payloads that came."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from math import exp, fsum, log
from typing import Any

from slimfleet.compression.cost.distortion import FLOAT32_BITS, bits_per_value

Cell = tuple[int, float]
"""(bits, sparsity) of a plan."""


@dataclass(frozen=True, slots=True, order=True)
class SizeObservation:
    """A payload that arrived: what was planned, and `len(payload)`."""

    bits: int
    sparsity: float
    parameters: int
    """Number of trained parameters of the shrunk model."""
    payload_bytes: int


@dataclass(frozen=True, slots=True)
class UpdateSizeModel:
    """Predicted uplink bytes, corrected per (bits, sparsity) and, where a cell is new, by the mean of all."""

    overhead_bytes: int = 128
    """Header and tables, whatever the model."""
    cells: Mapping[Cell, float] = field(default_factory=dict)
    """Natural log of actual/predicted bytes, per cell."""
    overall: float = 0.0
    """The same over all cells."""
    error: float = 0.0
    """Typical relative error of the corrected prediction (running mean of |log ratio|); 0 at first."""
    observed: int = 0
    """Number of payloads learned from."""
    gain: float = 0.3
    """Weight of a new round against the past, 0 < gain <= 1."""

    def bytes_per_parameter(self, bits: int, sparsity: float) -> float:
        """Corrected bytes that each parameter adds to the payload."""
        return bits_per_value(bits, sparsity) / 8 * exp(self._correction((bits, sparsity)))

    def predict(self, parameters: int, bits: int, sparsity: float) -> float:
        """Predicted bytes of a payload."""
        return self.overhead_bytes + parameters * self.bytes_per_parameter(bits, sparsity)

    def learn(self, observations: Iterable[SizeObservation]) -> UpdateSizeModel:
        """The model after one round's payloads. Their order does not matter: sums are exact (math.fsum)."""
        seen = sorted(observations)
        if not seen:
            return self
        cells, ratios = dict(self.cells), []
        for cell, members in groupby(seen, key=lambda o: (o.bits, o.sparsity)):
            of_cell = [self._log_ratio(o) for o in members]
            ratios += of_cell
            before = cells.get(cell)
            now = _mean(of_cell)
            cells[cell] = now if before is None else before + self.gain * (now - before)
        misses = [
            abs(ratio - self._correction((o.bits, o.sparsity))) for o, ratio in zip(seen, ratios, strict=True)
        ]
        first = self.observed == 0
        return UpdateSizeModel(
            overhead_bytes=self.overhead_bytes,
            cells=cells,
            overall=_mean(ratios) if first else self.overall + self.gain * (_mean(ratios) - self.overall),
            # The first miss is that of the bare formula, which nobody will use again.
            error=_spread(ratios) if first else self.error + self.gain * (_mean(misses) - self.error),
            observed=self.observed + len(seen),
            gain=self.gain,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values; JSON keeps Python floats exactly."""
        return {
            "overhead_bytes": self.overhead_bytes,
            "cells": [[bits, sparsity, value] for (bits, sparsity), value in sorted(self.cells.items())],
            "overall": self.overall,
            "error": self.error,
            "observed": self.observed,
            "gain": self.gain,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> UpdateSizeModel:
        """Undo `to_json`."""
        cells = {(int(bits), float(sparsity)): float(value) for bits, sparsity, value in values["cells"]}
        return cls(**{**values, "cells": cells})

    def _correction(self, cell: Cell) -> float:
        # Nothing is coded in plain float32: other cells teach nothing about it.
        return self.cells.get(cell, 0.0 if cell[0] == FLOAT32_BITS else self.overall)

    def _log_ratio(self, seen: SizeObservation) -> float:
        """Log of the actual payload over the bare formula, the overhead taken off both."""
        bare = seen.parameters * bits_per_value(seen.bits, seen.sparsity) / 8
        return log(max(seen.payload_bytes - self.overhead_bytes, 1) / bare)


def _mean(values: list[float]) -> float:
    return fsum(values) / len(values)


def _spread(values: list[float]) -> float:
    centre = _mean(values)
    return _mean([abs(value - centre) for value in values])
