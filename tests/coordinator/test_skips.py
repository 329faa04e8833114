"""Skips of a round: few one by one, many below the battery floor as arrays."""

from __future__ import annotations

import numpy as np

from slimfleet.compression import Skip
from slimfleet.coordinator.planning.skips import Skips

FEW = Skip(constraint="uplink_bytes", needed=3.0, limit=2.0)


def low(nodes: list[int], charge: float = 0.1) -> Skips:
    skips = Skips()
    skips.add_low(np.array(nodes, np.uint64), np.full(len(nodes), charge), 0.25)
    return skips


def test_both_kinds_read_alike() -> None:
    skips = low([3, 9])
    skips.add(7, FEW)
    expected = {node: Skip(constraint="battery", needed=0.25, limit=0.1) for node in (3, 9)} | {7: FEW}
    assert skips == expected
    assert list(skips) == [3, 7, 9]
    assert (len(skips), 7 in skips, 9 in skips, 4 in skips) == (3, True, True, False)
    assert skips.counts() == {"uplink_bytes": 1, "battery": 2}
    assert sorted(skips.nodes().tolist()) == [3, 7, 9]
    assert not Skips()
    assert Skips().counts() == {}


def test_a_later_plan_of_the_round_replaces_what_the_earlier_said_of_a_device() -> None:
    skips = low([3, 9])
    skips.add(7, FEW)
    later = low([7, 8, 9], charge=0.05)
    later.add(3, FEW)
    skips.update(later)
    assert skips[3] == FEW
    assert {node: skips[node].limit for node in (7, 8, 9)} == {7: 0.05, 8: 0.05, 9: 0.05}
    assert skips.counts() == {"uplink_bytes": 1, "battery": 3}
