"""Conditions of many devices at one moment, in arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression import Condition
from slimfleet.compression.types import UNKNOWN

__all__ = ["FleetConditions"]

_NOT_KNOWN = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetConditions:
    """What is known of each of n devices, (n,) an array; NaN, or -1 in integers, is what is not known."""

    reached: NDArray[np.bool_]
    """Whether it can take work now."""
    battery: NDArray[np.float64]
    """State of charge, 0..1."""
    charging: NDArray[np.int8]
    """0 or 1."""
    metered: NDArray[np.int8]
    """0 or 1."""
    temperature_c: NDArray[np.float64]
    free_memory_bytes: NDArray[np.int64]

    @classmethod
    def unknown(cls, devices: int) -> FleetConditions:
        """So many devices that can all take work and say nothing of themselves."""
        return cls(
            reached=np.ones(devices, np.bool_),
            battery=np.full(devices, np.nan),
            charging=np.full(devices, _NOT_KNOWN, np.int8),
            metered=np.full(devices, _NOT_KNOWN, np.int8),
            temperature_c=np.full(devices, np.nan),
            free_memory_bytes=np.full(devices, _NOT_KNOWN, np.int64),
        )

    @classmethod
    def of(cls, conditions: Sequence[Condition | None]) -> FleetConditions:
        """The conditions of devices one by one; None for one that cannot take work."""
        found = cls.unknown(len(conditions))
        for row, known in enumerate(conditions):
            found.reached[row] = known is not None
            if known is None or known is UNKNOWN:
                continue
            for name in ("battery", "charging", "metered", "temperature_c", "free_memory_bytes"):
                value = getattr(known, name)
                if value is not None:
                    getattr(found, name)[row] = value
        return found

    def __getitem__(self, row: int) -> Condition | None:
        """The condition of one device, or None when it cannot take work."""
        if not self.reached[row]:
            return None
        battery, warm = float(self.battery[row]), float(self.temperature_c[row])
        charging, metered, free = (
            int(each[row]) for each in (self.charging, self.metered, self.free_memory_bytes)
        )
        return Condition(
            battery=None if battery != battery else battery,
            charging=None if charging < 0 else charging == 1,
            metered=None if metered < 0 else metered == 1,
            temperature_c=None if warm != warm else warm,
            free_memory_bytes=None if free < 0 else free,
        )
