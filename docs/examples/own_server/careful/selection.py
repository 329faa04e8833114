"""A selection policy that asks devices on a charger, or without a battery, before all others."""

from collections.abc import Sequence

import numpy as np

from slimfleet.coordinator import SelectionSettings
from slimfleet.coordinator.planning import Candidate


def charging_first(
    candidates: Sequence[Candidate], settings: SelectionSettings, rng: np.random.Generator
) -> list[int]:
    """The nodes in the order in which they are asked; draw from `rng` alone, so that a seed repeats the run."""
    shuffled = [candidates[i] for i in rng.permutation(len(candidates))]
    shuffled.sort(key=lambda each: not (each.charging or each.battery is None))
    return [each.node for each in shuffled]
