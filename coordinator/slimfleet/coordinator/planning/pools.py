"""Pools: the devices of a large fleet that a round looks at before it looks at all."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from slimfleet.coordinator.registry import Nodes
from slimfleet.coordinator.settings import CoordinatorSettings

__all__ = ["pools"]


def pools(nodes: Nodes, settings: CoordinatorSettings, round_number: int) -> Iterator[Nodes]:
    """A pool of `nodes`, drawn without replacement, then the others; all at once where they are no more than the pool.

    Sorted, as `nodes` are. One round, asked again, draws the same pool.
    """
    size = settings.selection.pool
    if len(nodes) <= size:
        yield nodes
        return
    rng = np.random.default_rng((settings.seed, round_number, 3))
    places = np.sort(rng.choice(len(nodes), size, replace=False, shuffle=False))
    yield nodes[places]
    yield np.delete(nodes, places)
