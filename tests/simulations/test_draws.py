"""Draws of a population, against numpy's own generators one by one."""

from __future__ import annotations

import numpy as np
import pytest

from slimfleet.simulations.draws import uniforms


@pytest.mark.parametrize(
    ("seed", "stream"),
    [([0], [0]), ([5], [3]), ([2**40 + 7], [1, 1]), ([0], [17, 1]), ([2**100], [2**33, 2, 3])],
)
def test_they_are_those_that_each_device_makes_by_itself(seed: list[int], stream: list[int]) -> None:
    numbers = np.array([0, 1, 5, 199, 10**6, 9_999_999, 2**32 - 1])
    alone = [np.random.default_rng((*seed, int(number), *stream)).random(6) for number in numbers]
    assert (uniforms(seed, numbers, stream, range(6)) == np.array(alone).T).all()


def test_later_draws_come_without_the_earlier_ones_and_blocks_do_not_show() -> None:
    numbers = np.arange(40_000)
    [fourth] = uniforms([3], numbers, [8], [3])
    for number in (0, 16_383, 16_384, 39_999):
        assert fourth[number] == np.random.default_rng((3, number, 8)).random(4)[3]
    assert uniforms([3], numbers[:0], [8], [0, 1]).shape == (2, 0)
