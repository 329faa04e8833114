"""Estimates: those of all devices of a class side by side, so that a round looks at them in one pass over an array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["Estimates"]


class Estimates:
    """`columns` estimates of each device."""

    def __init__(self, columns: int) -> None:
        self._rows: dict[str, int] = {}
        self._values = np.empty((16, columns))

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, device: str, values: Sequence[float]) -> None:
        """Keep the estimates of a device, in place of earlier ones."""
        row = self._rows.setdefault(device, len(self._rows))
        if row == len(self._values):
            self._values = np.concatenate((self._values, np.empty_like(self._values)))
        self._values[row] = values

    def centres(self) -> list[tuple[float, float]]:
        """Of each column the median, and the median distance from it. The order of the devices does not matter."""
        values = self._values[: len(self)]
        medians = np.median(values, axis=0)
        distances = np.median(np.abs(values - medians), axis=0)
        return list(zip(medians.tolist(), distances.tolist(), strict=True))
