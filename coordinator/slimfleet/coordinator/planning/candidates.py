"""All candidate plans, enumerated once, as columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slimfleet.coordinator.planning.settings import PlannerSettings


@dataclass(frozen=True, slots=True)
class Candidates:
    """One row a candidate, (n,) each. `width_index` and `nmse_index` point into the distinct values below."""

    width: NDArray[np.float64]
    local_steps: NDArray[np.int64]
    batch_size: NDArray[np.int64]
    nmse: NDArray[np.float64]
    width_index: NDArray[np.intp]
    """Row -> position in `widths`."""
    nmse_index: NDArray[np.intp]
    """Row -> position in `nmses`."""
    widths: tuple[float, ...]
    nmses: tuple[float, ...]

    def steps(self, examples: int, max_epochs: float) -> NDArray[np.int64]:
        """Local steps of each candidate on a device with so many local examples: capped, at least one."""
        most = np.ceil(max_epochs * examples / self.batch_size).astype(np.int64)
        return np.maximum(np.minimum(self.local_steps, most), 1)


def candidates(settings: PlannerSettings) -> Candidates:
    """The product of the settings' grids: width varies slowest, the error fastest."""
    grids = (settings.widths, settings.local_steps, settings.batch_sizes, settings.nmse)
    rows = np.indices([len(grid) for grid in grids]).reshape(len(grids), -1)
    width, steps, batch, nmse = rows
    return Candidates(
        width=np.array(settings.widths)[width],
        local_steps=np.array(settings.local_steps)[steps],
        batch_size=np.array(settings.batch_sizes)[batch],
        nmse=np.array(settings.nmse)[nmse],
        width_index=width,
        nmse_index=nmse,
        widths=settings.widths,
        nmses=settings.nmse,
    )
