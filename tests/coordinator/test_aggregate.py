import numpy as np
import pytest
from four_rows import SCHEMA, TENSORS, map_of
from hypothesis import given
from hypothesis import strategies as st

from slimfleet.compression import ModelSchema, PayloadError
from slimfleet.compression.pruning import ChannelGroup, IndexMap, Member, index_map
from slimfleet.coordinator.learning.aggregate import CoverageMean


def change(where: IndexMap, value: float, count: int = 0) -> dict[str, np.ndarray]:
    update = {n: np.full(where.shapes[n], value, a.dtype) for n, a in TENSORS.items() if a.dtype.kind == "f"}
    rest = {n: np.zeros(where.shapes[n], a.dtype) for n, a in TENSORS.items() if a.dtype.kind != "f"}
    return update | rest | {"count": np.array(count)}


def mean_of(updates, most=None):
    mean = CoverageMean(SCHEMA, most or len(updates))
    for update, where, weight in updates:
        mean.add(update, where, weight)
    return mean


def test_every_element_is_averaged_over_the_examples_of_those_that_trained_it():
    everywhere, top = map_of(0, 1, 2, 3), map_of(0, 1)
    mean = mean_of([(change(everywhere, 1.0), everywhere, 30), (change(top, 4.0), top, 10)]).mean()
    assert mean["weight"][:, 0].tolist() == [1.75, 1.75, 1.0, 1.0]
    assert mean["running"].tolist() == [1.75, 1.75, 1.0, 1.0]


def test_where_no_device_trained_the_mean_is_zero_and_coverage_says_so():
    top = map_of(0, 1)
    mean = mean_of([(change(top, 4.0), top, 10)])
    assert mean.mean()["weight"][2:].tolist() == [[0.0] * 3] * 2
    assert mean.covered() == (2 * 3 + 2 + 1 + 2 + 2) / (12 + 4 + 1 + 4 + 4)
    assert CoverageMean(SCHEMA, 1).covered() == 0.0


def test_it_is_the_plain_weighted_mean_to_the_resolution_of_the_sum():
    rng, everywhere = np.random.default_rng(0), map_of(0, 1, 2, 3)
    updates, weights = [], rng.integers(1, 1000, 20)
    for _ in weights:
        update = change(everywhere, 0.0)
        update["weight"] = rng.normal(0, 0.01, (4, 3)).astype(np.float32)
        updates.append(update)
    mean = mean_of([(u, everywhere, int(w)) for u, w in zip(updates, weights, strict=True)]).mean()
    plain = np.average([u["weight"] for u in updates], axis=0, weights=weights)
    np.testing.assert_allclose(mean["weight"], plain, atol=2.0**-28)


def test_a_large_round_of_large_devices_has_room_for_its_updates():
    everywhere, most = map_of(0, 1, 2, 3), 10_000
    mean = CoverageMean(SCHEMA, most, most_examples=10**6)
    mean.add(change(everywhere, 200.0), everywhere, 10**6)
    mean.add(change(everywhere, -100.0), everywhere, 5 * 10**5)
    mean.add(change(everywhere, 7.0), everywhere, 1)
    assert mean.mean()["weight"] == pytest.approx(100.0, rel=2e-3)
    assert mean_of(
        [(change(everywhere, 1.0), everywhere, 63), (change(everywhere, 0.0), everywhere, 1)]
    ).mean()["weight"] == pytest.approx(63 / 64)


def test_counters_flags_and_unsigned_bytes():
    everywhere = map_of(0, 1, 2, 3)
    first, second = change(everywhere, 0.0, count=3), change(everywhere, 0.0, count=2**40)
    first["flag"][:] = [True, True, False, False]
    first["byte"][:] = [255, 0, 1, 250]  # one less, as a byte wraps around
    mean = mean_of([(first, everywhere, 3), (second, everywhere, 1)]).mean()
    assert mean["count"] == (3 * 3 + 2**40) / 4
    assert mean["flag"].tolist() == [0.75, 0.75, 0.0, 0.0]
    assert mean["byte"].tolist() == [-0.75, 0.0, 0.75, -4.5]


updates = st.lists(
    st.tuples(
        st.sets(st.integers(0, 3), min_size=1),
        st.floats(-50, 50, width=32),
        st.integers(-(2**20), 2**20),
        st.integers(1, 2**20),
    ),
    min_size=2,
    max_size=8,
)


@given(updates, st.randoms(use_true_random=False))
def test_any_order_of_arrival_gives_the_same_bytes(drawn, random):
    made = []
    for rows, value, count, weight in drawn:
        where = map_of(*sorted(rows))
        made.append((change(where, value, count), where, weight))
    shuffled = list(made)
    random.shuffle(shuffled)
    for name, values in mean_of(made).mean().items():
        assert values.tobytes() == mean_of(shuffled).mean()[name].tobytes()


@given(
    st.lists(
        st.tuples(st.floats(0, 1e12), st.integers(0, 2**62), st.integers(1, 2**20)), min_size=1, max_size=6
    ),
    st.randoms(use_true_random=False),
)
def test_whether_an_update_is_refused_depends_on_it_alone_and_sums_never_overflow(drawn, random):
    everywhere = map_of(0, 1, 2, 3)

    def refused(order):
        mean, out = CoverageMean(SCHEMA, len(drawn)), set()
        for i in order:
            value, count, weight = drawn[i]
            try:
                mean.add(change(everywhere, value, count), everywhere, weight)
            except PayloadError:
                out.add(i)
        return out, mean.mean()

    order = list(range(len(drawn)))
    out, mean = refused(order)
    random.shuffle(order)
    again, _ = refused(order)
    assert again == out
    kept = [drawn[i] for i in order if i not in out]
    total = sum(weight for _, _, weight in kept) or 1
    # Python's integers and floats do not wrap.
    assert mean["count"] == pytest.approx(sum(c * w for _, c, w in kept) / total, rel=1e-12)
    expected = sum(float(np.float32(v)) * w for v, _, w in kept) / total
    assert mean["weight"][0, 0] == pytest.approx(expected, rel=1e-9, abs=2.0**-28)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_what_cannot_be_summed_is_refused_and_leaves_the_sum_alone(value):
    everywhere = map_of(0, 1, 2, 3)
    mean = mean_of([(change(everywhere, 1.0), everywhere, 1)], most=2)
    with pytest.raises(PayloadError) as refusal:
        mean.add(change(everywhere, value), everywhere, 1)
    assert refusal.value.reason == "norm"
    assert (mean.updates, mean.mean()["weight"][0, 0]) == (1, 1.0)


def test_the_least_integer_is_not_taken_for_a_small_one():
    """abs(-2**63) is negative in int64."""
    everywhere = map_of(0, 1, 2, 3)
    with pytest.raises(PayloadError):
        mean_of([(change(everywhere, 0.0, count=-(2**63)), everywhere, 1)])


def test_more_updates_than_there_is_room_for_are_an_error():
    everywhere = map_of(0, 1, 2, 3)
    with pytest.raises(ValueError, match="one more"):
        mean_of([(change(everywhere, 1.0), everywhere, 1)] * 3, most=2)


@pytest.mark.parametrize(("absent_weight", "expected"), [(0.0, 2.0), (0.5, 1.0), (1.0, 2.0 / 3)])
def test_devices_that_did_not_train_an_element_hold_it_back(absent_weight: float, expected: float) -> None:
    full = {"w": np.zeros(2, np.float32)}
    schema = ModelSchema.of(full, {"w"})
    group = ChannelGroup("w", 2, (Member("w", 0, np.array([[0], [1]])),))
    mean = CoverageMean(schema, 2)
    mean.add({"w": np.array([2.0, 2.0], np.float32)}, index_map(schema, [group], {}), 10)
    mean.add({"w": np.array([4.0], np.float32)}, index_map(schema, [group], {"w": np.array([0])}), 20)
    first, second = mean.mean(absent_weight)["w"]
    assert first == pytest.approx((2.0 * 10 + 4.0 * 20) / 30)
    assert second == pytest.approx(expected)


def test_statistics_of_large_data_are_cut_to_what_the_sum_has_room_for_and_weights_are_refused():
    everywhere = map_of(0, 1, 2, 3)
    large = change(everywhere, 0.0)
    large["running"][:] = [1e12, -1e12, 5.0, 0.0]
    mean = mean_of([(large, everywhere, 1000), (change(everywhere, 0.0), everywhere, 1000)], most=20).mean()
    assert mean["running"][0] == -mean["running"][1] > 1e5
    assert mean["running"][2:].tolist() == [2.5, 0.0]
    with pytest.raises(PayloadError):
        mean_of([(change(everywhere, 1e12), everywhere, 1000)])


@pytest.mark.parametrize("absent_weight", [0.0, 1.0])
def test_what_is_not_finite_is_set_by_the_devices_that_set_it(absent_weight):
    model = {name: array.copy() for name, array in TENSORS.items()}
    model["running"][:] = [np.inf, -np.inf, np.nan, 5.0]
    everywhere, top = map_of(0, 1, 2, 3), map_of(0, 1)
    first, second, third = change(everywhere, 0.0), change(everywhere, 0.0), change(top, 0.0)
    first["running"][:] = [4.0, 0.0, 0.0, 4.0]
    second["running"][:] = [0.0, 0.0, 2.0, 0.0]
    third["running"][:] = [1.0, 0.0]
    mean = CoverageMean(SCHEMA, 3, model)
    for update, where, weight in ((first, everywhere, 10), (second, everywhere, 20), (third, top, 30)):
        mean.add(update, where, weight)
    weight = 30 + absent_weight * 30
    assert mean.mean(absent_weight)["running"].tolist() == [(10 * 4 + 30) / 40, 0.0, 2.0, 10 * 4 / weight]
