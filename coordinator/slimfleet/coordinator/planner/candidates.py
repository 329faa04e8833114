"""All candidate plans, enumerated once, as columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slimfleet.coordinator.planner.settings import PlannerSettings


@dataclass(frozen=True, slots=True)
class Candidates:
    """One row a candidate, (n,) each. `width_index` and `cell` point into the distinct values below."""

    width: NDArray[np.float64]
    local_steps: NDArray[np.int64]
    batch_size: NDArray[np.int64]
    bits: NDArray[np.int64]
    sparsity: NDArray[np.float64]
    width_index: NDArray[np.intp]
    """Row -> position in `widths`."""
    cell: NDArray[np.intp]
    """Row -> position in `cells`."""
    widths: tuple[float, ...]
    cells: tuple[tuple[int, float], ...]
    """Distinct (bits, sparsity)."""

    def steps(self, examples: int, max_epochs: float) -> NDArray[np.int64]:
        """Local steps of each candidate on a device with so many local examples: capped, at least one."""
        most = np.ceil(max_epochs * examples / self.batch_size).astype(np.int64)
        return np.maximum(np.minimum(self.local_steps, most), 1)


def candidates(settings: PlannerSettings) -> Candidates:
    """The product of the settings' grids: width varies slowest, sparsity fastest."""
    grids = (settings.widths, settings.local_steps, settings.batch_sizes, settings.bits, settings.sparsities)
    rows = np.indices([len(grid) for grid in grids]).reshape(len(grids), -1)
    width, steps, batch, bits, sparsity = rows
    return Candidates(
        width=np.array(settings.widths)[width],
        local_steps=np.array(settings.local_steps)[steps],
        batch_size=np.array(settings.batch_sizes)[batch],
        bits=np.array(settings.bits)[bits],
        sparsity=np.array(settings.sparsities)[sparsity],
        width_index=width,
        cell=bits * len(settings.sparsities) + sparsity,
        widths=settings.widths,
        cells=tuple((b, s) for b in settings.bits for s in settings.sparsities),
    )
