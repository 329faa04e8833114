"""Limits: which candidates keep a budget, with margins."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.cost import Costs, Demand, UpdateSizeModel
from slimfleet.compression.types import Budget
from slimfleet.coordinator.learning.calibration import Correction, Factor
from slimfleet.coordinator.settings import PlannerSettings

Floats = NDArray[np.float64]

LEAST_MEMORY_FACTOR = 1.1
LEAST_LIMIT = 1e-9
"""A limit of nothing, or less (a battery below its floor), counts as this: no plan keeps it."""


def needs(
    costs: Costs, demand: Demand, correction: Correction, sizes: UpdateSizeModel, settings: PlannerSettings
) -> dict[str, Floats]:
    """What each candidate may need of each limit of a `Budget`, margins included, (n,) each.

    Margins are factors: `safety` standard deviations of the logarithm of past errors, at least `margin`. The
    codec cuts an update to its uplink limit, so uplink bytes get only the first; downlink bytes are known, and
    so is the energy of the radio, whose burst outweighs all else.
    """
    z, least = settings.safety, 1 + settings.margin
    training_j = costs.energy_j - costs.radio_j - costs.startup_j

    def raised(predicted: Floats, factor: Factor, least: float = least) -> Floats:
        return predicted * factor.value * max(exp(z * factor.spread), least)

    return {
        "energy_j": costs.radio_j + costs.startup_j * least + raised(training_j, correction.energy),
        "memory_bytes": raised(costs.memory_bytes, correction.memory, max(least, LEAST_MEMORY_FACTOR)),
        "deadline_s": raised(costs.time_s, correction.time),
        "uplink_bytes": np.asarray(demand.uplink_bytes) * exp(z * sizes.error),
        "downlink_bytes": np.asarray(demand.downlink_bytes),
    }


def used(needed: Mapping[str, Floats], budget: Budget) -> dict[str, Floats]:
    """Need over limit of every limit that is set; 1 is exactly at the limit."""
    limits = {name: getattr(budget, name) for name in needed}
    return {
        name: needed[name] / max(limits[name], LEAST_LIMIT) for name in needed if limits[name] is not None
    }


def feasible(
    shares: Mapping[str, Floats], rows: int, slack: Mapping[str, float] | None = None
) -> NDArray[np.bool_]:
    """Rows that keep every limit; `slack` multiplies some limits (what if memory were 1.25 times larger?)."""
    fits = np.ones(rows, np.bool_)
    for name, share in shares.items():
        fits &= share <= (slack or {}).get(name, 1.0)
    return fits
