"""A round of a large fleet looks at a pool of it first, and at all others where that is not enough."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from driven import coordinator_of, small

from slimfleet.coordinator import Coordinator
from slimfleet.coordinator.planning.pools import pools
from slimfleet.coordinator.settings import CoordinatorSettings

NODES = np.arange(1, 1_001, dtype=np.uint64)
SETTINGS = CoordinatorSettings()
TEN = replace(SETTINGS, selection=replace(SETTINGS.selection, pool=10))


def drawn(settings: CoordinatorSettings, round_number: int) -> list[list[int]]:
    return [each.tolist() for each in pools(NODES, settings, round_number)]


def test_a_pool_and_the_others_are_the_fleet() -> None:
    pool, others = drawn(TEN, 1)
    assert len(pool) == 10
    assert sorted(pool + others) == NODES.tolist()
    assert (pool, others) == (sorted(pool), sorted(others))
    assert drawn(SETTINGS, 1) == [NODES.tolist()], "a small fleet is its own pool"


def test_a_round_keeps_its_pool_and_the_next_draws_another() -> None:
    assert drawn(TEN, 1) == drawn(TEN, 1) != drawn(TEN, 2)
    often = np.bincount([node for number in range(2_000) for node in drawn(TEN, number)[0]], minlength=1_001)
    assert often[1:].mean() == 20
    assert often[1:].max() < 50, "each device as often as any other"


def planned(**overrides: str) -> tuple[list[int], Coordinator]:
    """The nodes of the first round's work among 400 devices, of which it asks 6."""
    settings = {"fleet.devices": "400", "selection.pool": "40"} | overrides
    coordinator = coordinator_of(small(**settings))
    work = coordinator.plan(0.0, coordinator.wanted(), range(1, 401))
    assert len(work.dispatches) == 6
    return [each.node for each in work.dispatches], coordinator


def test_work_goes_to_the_pool() -> None:
    nodes, coordinator = planned()
    pool = next(pools(np.arange(1, 401, dtype=np.uint64), coordinator.settings, 1))
    assert set(nodes) <= set(pool.tolist())


def test_the_others_are_asked_where_the_pool_has_too_few() -> None:
    nodes, coordinator = planned(**{"selection.pool": "2", "fleet.availability": "0.5"})
    [*pool] = next(pools(np.arange(1, 401, dtype=np.uint64), coordinator.settings, 1)).tolist()
    assert len(set(nodes) - set(pool)) >= 4
    assert len(set(nodes)) == 6
