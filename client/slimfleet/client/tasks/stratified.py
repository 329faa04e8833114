"""Stratified split: a share of each class, held out for evaluation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slimfleet.client.tasks.partition import Index


def held_out(labels: NDArray[np.integer], share: float, rng: np.random.Generator) -> tuple[Index, Index]:
    """Numbers of the examples to train on, and of `share` of each class to evaluate on; both sorted."""
    parts = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        parts.append(members[: round(share * len(members))])
    evaluation = np.sort(np.concatenate(parts))
    return np.setdiff1d(np.arange(len(labels)), evaluation), evaluation
