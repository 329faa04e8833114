"""Evaluating on devices: how many held-out examples a device may evaluate, by what its round is predicted to cost."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from slimfleet.compression import Cost, DeviceProfile
from slimfleet.compression.cost import Work
from slimfleet.compression.messages import EvaluationLimit
from slimfleet.compression.types import MOST_EVALUATED
from slimfleet.coordinator.quantile import median_low
from slimfleet.coordinator.settings import CoordinatorSettings

__all__ = ["evaluation_limit", "most_evaluated"]

MOST_OF_MEDIAN = 10
"""Held-out examples of the median device that one device may evaluate, at most."""


def evaluation_limit(
    settings: CoordinatorSettings, profile: DeviceProfile, work: Work, predicted: Cost, most: int
) -> EvaluationLimit | None:
    """What a device may spend on evaluating the whole model in a round that costs so much besides.

    The prediction counts without the planner's margin, by which the round may come out cheaper: the share of joules is
    to hold of the round as it was. None where not one example fits.
    """
    energy_j = settings.evaluation.energy_share * predicted.energy_j / (1.0 + settings.planner.margin)
    example_j = profile.train_w * work.forward_flops_per_example / profile.train_flops_per_s
    examples = most if example_j <= 0 else int(min(energy_j / example_j, most))
    return EvaluationLimit(examples=examples, energy_j=energy_j) if examples >= 1 else None


def most_evaluated(share: float, examples: ArrayLike) -> int:
    """Examples that one device may evaluate, whatever it claims to hold; `examples`, (n,), are all devices' claims."""
    claimed = np.asarray(examples)
    median = median_low(claimed) if len(claimed) else 0
    return min(max(int(MOST_OF_MEDIAN * share * median), 1), MOST_EVALUATED)
