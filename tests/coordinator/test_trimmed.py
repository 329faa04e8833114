"""The trimmed mean and the median, held against numpy on every coordinate."""

from __future__ import annotations

import numpy as np
import pytest
from four_rows import SCHEMA, TENSORS, map_of
from hypothesis import given
from hypothesis import strategies as st

from slimfleet.compression import ModelSchema, PayloadError
from slimfleet.compression.pruning import IndexMap
from slimfleet.coordinator.learning.aggregate import CoverageMean
from slimfleet.coordinator.learning.trimmed import TrimmedMean

EVERYWHERE = map_of(0, 1, 2, 3)


def change(where: IndexMap, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "weight": rng.normal(0, 1, where.shapes["weight"]).astype(np.float32),
        "running": rng.normal(0, 100, where.shapes["running"]).astype(np.float32),
        "count": np.array(rng.integers(-(2**40), 2**40)),
        "byte": rng.integers(0, 256, where.shapes["byte"]).astype(np.uint8),
        "flag": rng.random(where.shapes["flag"]) < 0.5,
    }


def trimmed(updates, trim=0.5, most=None, model=None):
    mean = TrimmedMean(SCHEMA, most or len(updates), model, trim)
    for update, where in updates:
        mean.add(update, where, 1)
    return mean


def expected(values: list[float], trim: float) -> float:
    values = sorted(values)
    out = min(int(np.ceil(trim * len(values) - 1e-9)), (len(values) - 1) // 2) if values else 0
    kept = values[out : len(values) - out]
    return sum(kept) / max(len(kept), 1)


cohorts = st.lists(st.sets(st.integers(0, 3), min_size=1), min_size=1, max_size=9)


@given(cohorts, st.sampled_from([0.0, 0.1, 0.25, 0.4, 0.5]), st.integers(0, 5))
def test_each_coordinate_is_the_trimmed_mean_of_the_devices_that_trained_it(rows, trim, spare):
    made = [(change(map_of(*sorted(kept)), seed), map_of(*sorted(kept))) for seed, kept in enumerate(rows)]
    mean = trimmed(made, trim, most=len(made) + spare).mean()
    for row in range(4):
        having = [
            (u, sorted(kept).index(row)) for (u, _), kept in zip(made, rows, strict=True) if row in kept
        ]
        for name in ("running", "byte", "flag"):
            values = [u[name].astype(np.int8 if name == "byte" else float)[i] for u, i in having]
            assert mean[name][row] == pytest.approx(expected([float(v) for v in values], trim), abs=2e-8)
        for column in range(3):
            values = [float(u["weight"][i, column]) for u, i in having]
            assert mean["weight"][row, column] == pytest.approx(expected(values, trim), abs=2e-8)
    assert mean["count"] == pytest.approx(expected([float(u["count"]) for u, _ in made], trim))


@given(cohorts, st.sampled_from([0.1, 0.3, 0.5]), st.randoms(use_true_random=False))
def test_any_order_of_arrival_gives_the_same_bytes(rows, trim, random):
    made = [(change(map_of(*sorted(kept)), seed), map_of(*sorted(kept))) for seed, kept in enumerate(rows)]
    shuffled = list(made)
    random.shuffle(shuffled)
    for name, values in trimmed(made, trim).mean(0.5).items():
        assert values.tobytes() == trimmed(shuffled, trim).mean(0.5)[name].tobytes()


def test_untrimmed_it_is_the_mean_of_equal_weights():
    made = [(change(EVERYWHERE, seed), EVERYWHERE) for seed in range(7)]
    plain = CoverageMean(SCHEMA, 7)
    for update, where in made:
        plain.add(update, where, 1)
    for name, values in trimmed(made, trim=0.0).mean().items():
        assert values.tobytes() == plain.mean()[name].tobytes()


@pytest.mark.parametrize("spoil", [lambda x: -10 * x, lambda x: 100 * x, lambda x: np.float32(3e3) + 0 * x])
def test_as_many_hostile_devices_as_are_trimmed_stay_within_the_range_of_the_others(spoil):
    made = [(change(EVERYWHERE, seed), EVERYWHERE) for seed in range(20)]
    for update, _ in made[:2]:
        update["weight"] = spoil(update["weight"])
    mean = trimmed(made, trim=0.1).mean()["weight"]
    honest = np.stack([update["weight"] for update, _ in made[2:]])
    assert (mean >= honest.min(0)).all()
    assert (mean <= honest.max(0)).all()
    assert np.abs(mean - honest.mean(0)).max() < 0.5


def test_claimed_examples_do_not_count():
    one, other = (trimmed([], most=3) for _ in range(2))
    for seed in range(3):
        one.add(change(EVERYWHERE, seed), EVERYWHERE, 1)
        other.add(change(EVERYWHERE, seed), EVERYWHERE, 2**31)
    assert one.mean()["weight"].tobytes() == other.mean()["weight"].tobytes()


def test_a_share_that_is_a_whole_number_of_devices_is_that_number():
    """0.1 * 30 is 3.0000000000000004, and 0.29 * 100 is 28.999999999999996."""
    for devices, trim, out in ((30, 0.1, 3), (20, 0.1, 2), (19, 0.1, 2), (100, 0.29, 29), (2, 0.5, 0)):
        mean = TrimmedMean(SCHEMA, devices, trim=trim)
        for i in range(devices):
            update = change(EVERYWHERE, 0) | {"count": np.array(2**20 if i < out else 0)}
            mean.add(update, EVERYWHERE, 1)
        assert mean.mean()["count"] == 0


@pytest.mark.parametrize(("absent_weight", "expected"), [(0.0, 3.0), (0.5, 2.0), (1.0, 1.5)])
def test_devices_that_did_not_train_an_element_hold_it_back(absent_weight, expected):
    top, rest = map_of(0), map_of(1, 2, 3)
    mean = TrimmedMean(SCHEMA, 6, trim=0.1)
    for value in (1.0, 3.0, 900.0):
        mean.add(change(top, 0) | {"running": np.array([value], np.float32)}, top, 1)
    mean.add(change(rest, 0), rest, 1)
    assert mean.mean(absent_weight)["running"][0] == pytest.approx(expected)
    assert mean.covered() == 1.0


def test_what_is_not_finite_is_set_by_the_devices_that_set_it():
    model = {name: array.copy() for name, array in TENSORS.items()}
    model["running"][:] = [np.inf, np.nan, 5.0, 5.0]
    made = []
    for seed, values in enumerate(([4.0, 0.0, 1.0, 0.0], [0.0, 0.0, 2.0, 0.0], [0.0, 6.0, 9.0, 0.0])):
        made.append((change(EVERYWHERE, seed) | {"running": np.array(values, np.float32)}, EVERYWHERE))
    assert trimmed(made, model=model).mean(1.0)["running"].tolist() == [4.0, 6.0, 2.0, 0.0]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_what_cannot_be_summed_is_refused_and_leaves_the_sum_alone(value):
    mean = trimmed([(change(EVERYWHERE, 0), EVERYWHERE)], most=3)
    before = mean.mean()["weight"].tobytes()
    spoiled = change(EVERYWHERE, 1) | {"weight": np.full((4, 3), value, np.float32)}
    with pytest.raises(PayloadError) as refusal:
        mean.add(spoiled, EVERYWHERE, 1)
    assert refusal.value.reason == "norm"
    assert (mean.updates, mean.mean()["weight"].tobytes()) == (1, before)


def test_statistics_of_large_data_are_cut_to_what_the_sum_has_room_for():
    large = change(EVERYWHERE, 0) | {"running": np.array([1e30, -1e30, 5.0, 0.0], np.float32)}
    mean = trimmed([(large, EVERYWHERE)], most=20).mean()["running"]
    assert mean[0] == -mean[1] > 1e5
    assert mean[2:].tolist() == [5.0, 0.0]


def test_more_updates_than_there_is_room_for_are_an_error():
    with pytest.raises(ValueError, match="one more"):
        trimmed([(change(EVERYWHERE, 0), EVERYWHERE)] * 3, most=2)


@pytest.mark.parametrize(("trim", "slots"), [(0.0, 0), (0.1, 2), (0.5, 9)])
def test_memory_is_what_the_docstring_says(trim, slots):
    full = {"w": np.zeros(1000, np.float32)}
    mean = TrimmedMean(ModelSchema.of(full, ["w"]), 20, trim=trim)
    held = [part["w"].nbytes for part in (mean._sum.total, mean._sum.weight, mean._largest, mean._smallest)]
    assert sum(held) == 1000 * (8 + 4 + 2 * 4 * slots)
