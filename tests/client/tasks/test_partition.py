import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfleet.client.tasks.partition import dirichlet_partition, grouped_partition
from slimfleet.compression.errors import BadInput


@settings(max_examples=60, deadline=None)
@given(
    classes=st.integers(1, 10),
    examples=st.integers(40, 400),
    partitions=st.integers(1, 20),
    alpha=st.sampled_from([0.01, 0.1, 0.5, 1.0, 100.0, np.inf]),
    minimum=st.integers(0, 2),
    seed=st.integers(0, 2**32),
)
def test_partitions_are_disjoint_complete_and_never_too_small(
    classes, examples, partitions, alpha, minimum, seed
):
    labels = np.random.default_rng(seed).integers(0, classes, examples)
    parts = dirichlet_partition(labels, partitions, alpha, np.random.default_rng(seed), minimum)
    assert len(parts) == partitions
    assert sorted(np.concatenate(parts)) == list(range(examples))
    assert min(len(part) for part in parts) >= minimum


def test_the_seed_decides_the_partition():
    labels = np.arange(1000) % 10
    first, again, other = (dirichlet_partition(labels, 20, 0.5, np.random.default_rng(s)) for s in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_small_alpha_skews_labels_and_an_infinite_one_does_not():
    labels = np.arange(10_000) % 10

    def largest_share(alpha):
        parts = dirichlet_partition(labels, 20, alpha, np.random.default_rng(0), minimum=1)
        return np.mean([np.bincount(labels[part], minlength=10).max() / len(part) for part in parts])

    assert largest_share(0.05) > 0.5
    assert largest_share(np.inf) == pytest.approx(0.1, abs=0.005)


def test_an_even_split_of_few_examples_leaves_no_device_out():
    labels = np.repeat(np.arange(10), 144)
    sizes = [len(part) for part in dirichlet_partition(labels, 200, np.inf, np.random.default_rng(0))]
    assert min(sizes) >= 1
    assert max(sizes) <= 10


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan")])
def test_alpha_must_be_positive(alpha):
    with pytest.raises(BadInput, match="alpha"):
        dirichlet_partition(np.zeros(10, np.int64), 2, alpha, np.random.default_rng(0))


def test_too_many_partitions_are_refused_with_the_limit():
    with pytest.raises(BadInput, match="at most 5 partitions of at least 2"):
        dirichlet_partition(np.zeros(10, np.int64), 6, 1.0, np.random.default_rng(0), minimum=2)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.array([0.0, 1.0, np.nan, np.nan]), "2 of 4 labels are NaN"),
        (np.array(["2020", "NaT", "2021"], "datetime64[Y]"), "1 of 3 labels are NaN"),
        (np.zeros((4, 1)), r"labels of shape \[4, 1\]"),
    ],
)
def test_every_example_needs_one_label(labels, words):
    with pytest.raises(BadInput, match=words) as refusal:
        dirichlet_partition(labels, 2, 1.0, np.random.default_rng(0))
    assert "\n" not in str(refusal.value)


def test_labels_may_be_of_any_type():
    for labels in (
        np.array([0.5, 0.5, np.inf, 1.5]),
        np.array(["a", "b", "a", "b"]),
        np.array([True, False] * 2),
    ):
        parts = dirichlet_partition(labels, 2, 1.0, np.random.default_rng(0))
        assert sorted(np.concatenate(parts)) == [0, 1, 2, 3]


@settings(max_examples=60, deadline=None)
@given(
    persons=st.integers(1, 8),
    partitions=st.integers(1, 40),
    alpha=st.sampled_from([0.1, 1.0, np.inf]),
    seed=st.integers(0, 2**32),
)
def test_groups_stay_together_or_apart(persons, partitions, alpha, seed):
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(persons), rng.integers(40, 80, persons)))
    labels = rng.integers(0, 5, len(groups))
    parts = grouped_partition(groups, labels, partitions, alpha, rng)
    assert len(parts) == partitions
    assert sorted(np.concatenate(parts)) == list(range(len(groups)))
    owned = [set(groups[part]) for part in parts]
    if partitions <= persons:
        assert sorted(person for group in owned for person in group) == list(range(persons))
    else:
        assert all(len(group) == 1 for group in owned)


def test_more_partitions_than_the_smallest_group_allows_are_refused():
    groups = np.repeat([0, 1], [10, 6])
    parts = grouped_partition(groups, groups, 6, 1.0, np.random.default_rng(0), minimum=2)
    assert min(map(len, parts)) >= 2
    with pytest.raises(
        BadInput, match=r"16 examples of 2 groups, the smallest of 6, give at most 6 .* not 7"
    ):
        grouped_partition(groups, groups, 7, 1.0, np.random.default_rng(0), minimum=2)
