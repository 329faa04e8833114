"""Limits: which candidates keep a budget, with margins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.cost import Costs, Demand, UpdateSizeModel
from slimfleet.coordinator.learning.calibration import QUANTITIES, Correction, Factor, Quantity
from slimfleet.coordinator.settings import PlannerSettings

Floats = NDArray[np.float64]

LEAST_MEMORY_FACTOR = 1.1
LEAST_LIMIT = 1e-9
"""A limit of nothing, or less (a battery below its floor), counts as this: no plan keeps it."""


@dataclass(frozen=True, slots=True)
class Margins:
    """Factors on the predictions of d devices, (d, 1) each.

    Margins are factors too: `safety` standard deviations of the logarithm of past errors, at least `margin`.
    """

    expected: Mapping[Quantity, Floats]
    """What reports have come to, over what was predicted."""
    margin: Mapping[Quantity, Floats]

    @classmethod
    def of(cls, corrections: Sequence[Correction], settings: PlannerSettings) -> Margins:
        """The factors of devices whose costs are corrected so."""
        least = 1 + settings.margin

        def raised(quantity: Quantity, factor: Factor) -> float:
            lowest = max(least, LEAST_MEMORY_FACTOR) if quantity == "memory" else least
            return max(exp(settings.safety * factor.spread), lowest)

        factors: dict[Quantity, list[Factor]] = {
            quantity: [getattr(each, quantity) for each in corrections] for quantity in QUANTITIES
        }
        return cls(
            {q: column([each.value for each in known]) for q, known in factors.items()},
            {q: column([raised(q, each) for each in known]) for q, known in factors.items()},
        )

    def at(self, devices: NDArray[np.intp]) -> Margins:
        """The factors of some of the devices."""
        return Margins(
            {q: each[devices] for q, each in self.expected.items()},
            {q: each[devices] for q, each in self.margin.items()},
        )

    def raised(self, quantity: Quantity, predicted: Floats) -> Floats:
        """A prediction with its factors."""
        return predicted * self.expected[quantity] * self.margin[quantity]


def needs(
    costs: Costs, demand: Demand, margins: Margins, sizes: UpdateSizeModel, settings: PlannerSettings
) -> dict[str, Floats]:
    """What each candidate may need of each limit of a `Budget`, margins included, (d, n) each.

    The codec cuts an update to its uplink limit, so uplink bytes get only the margin of past errors; downlink bytes are
    known, and so is the energy of the radio, whose burst outweighs all else.
    """
    training_j = costs.energy_j - costs.radio_j - costs.startup_j
    least = 1 + settings.margin
    return {
        "energy_j": costs.radio_j + costs.startup_j * least + margins.raised("energy", training_j),
        "memory_bytes": margins.raised("memory", costs.memory_bytes),
        "deadline_s": margins.raised("time", costs.time_s),
        "uplink_bytes": np.asarray(demand.uplink_bytes) * exp(settings.safety * sizes.error),
        "downlink_bytes": np.asarray(demand.downlink_bytes),
    }


def used(needed: Mapping[str, Floats], limits: Mapping[str, Floats]) -> dict[str, Floats]:
    """Need over each of these limits, (d, 1); 1 is exactly at the limit."""
    return {name: needed[name] / limit for name, limit in limits.items()}


def feasible(
    shares: Mapping[str, Floats], slack: Mapping[str, float] | None = None
) -> NDArray[np.bool_] | None:
    """Which candidates keep every limit, (d, n); None where there is no limit. `slack` multiplies some limits (what if
    memory were 1.25 times larger?)."""
    fits: NDArray[np.bool_] | None = None
    for name, share in shares.items():
        keeps = share <= (slack or {}).get(name, 1.0)
        fits = keeps if fits is None else fits & keeps
    return fits


def column(values: Sequence[float]) -> Floats:
    """A value for each of d devices, (d, 1)."""
    return np.array(values, np.float64).reshape(-1, 1)
