"""Updates judged and added up many at once: what one after the other gives, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

from slimfleet.compression import ModelSchema, PayloadError
from slimfleet.compression.pruning import index_map
from slimfleet.coordinator.learning.covered_sum import CoveredSum, RowSum, Scale
from slimfleet.coordinator.receiving.checks import norms_of, norms_of_rows
from slimfleet.coordinator.receiving.lot import _rows

SHAPES = {"matrix": (37, 19), "kernel": (5, 3, 3, 3), "bias": (19,)}
SCHEMA = ModelSchema.of({name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}, SHAPES)


def updates(count: int, size: float = 0.1) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(count)
    return [
        {name: rng.normal(0, size, shape).astype(np.float32) for name, shape in SHAPES.items()}
        for _ in range(count)
    ]


def test_norms_of_rows_are_those_of_each_update() -> None:
    some = updates(9)
    some[3]["kernel"][1, 2, 0, 0] = np.nan
    some[5]["bias"][4] = -np.inf
    found = norms_of_rows(_rows(some, SCHEMA), SCHEMA)
    assert [place for place, norms in enumerate(found) if norms is None] == [3, 5]
    for place in (0, 1, 2, 4, 6, 7, 8):
        assert found[place] == norms_of(some[place], SCHEMA)


@pytest.mark.parametrize("size", [0.1, 3e4])
def test_a_sum_of_rows_is_that_of_the_updates_one_by_one(size: float) -> None:
    """Small values are added in float64, large ones in int64: both exactly."""
    some, examples = updates(11, size), [7 + 13 * place for place in range(11)]
    everywhere = index_map(SCHEMA, [], {})
    whole, rows = CoveredSum(SCHEMA, 11), RowSum(Scale(share=2.0**62 / 11, lot=1))
    for update, weight in zip(some, examples, strict=True):
        whole.add(update, everywhere, weight)
    errors = rows.add(_rows(some[:4], SCHEMA), examples[:4]) + rows.add(_rows(some[4:], SCHEMA), examples[4:])
    assert errors == [None] * 11
    total = rows.total(SCHEMA)
    assert (total.weight, total.updates) == (sum(examples), 11)
    for name, array in whole.total.items():
        assert np.array_equal(total.integers[name], array)
        assert total.integers[name].dtype == np.int64


def test_an_update_that_could_overflow_is_left_out_with_the_same_words() -> None:
    some, scale = updates(3), Scale(share=2.0**62 / 3, lot=1)
    some[1]["kernel"][0, 0, 0, 0] = 1e12
    everywhere = index_map(SCHEMA, [], {})
    one_by_one = CoveredSum(SCHEMA, 3)
    with pytest.raises(PayloadError) as refused:
        one_by_one.add(some[1], everywhere, 5)
    rows = RowSum(scale)
    first, second, third = rows.add(_rows(some, SCHEMA), [5, 5, 5])
    assert (first, third) == (None, None)
    assert str(second) == str(refused.value)
    assert rows.total(SCHEMA).updates == 2


def test_a_sum_of_nothing_is_empty() -> None:
    assert RowSum(Scale(share=1.0, lot=1)).total(SCHEMA).integers == {}
