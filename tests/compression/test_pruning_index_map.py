import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from slimfleet.compression.errors import BadInput, PayloadError
from slimfleet.compression.pruning import ChannelGroup, IndexMap, Member, index_map, magnitude_scores
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors


def tensors() -> Tensors:
    """A kernel (4, 2, 3), its bias, a matrix behind a flatten of 4 channels x 2, a counter."""
    return {
        "conv.weight": np.arange(24, dtype=np.float32).reshape(4, 2, 3) + 1,
        "conv.bias": np.arange(4, dtype=np.float32) + 1,
        "fc.weight": np.arange(40, dtype=np.float32).reshape(5, 8) + 1,
        "steps": np.array(7),
    }


def block(size: int, k: int, offset: int = 0) -> NDArray[np.intp]:
    return np.arange(size * k).reshape(size, k) + offset


CONV = ChannelGroup(
    "conv",
    4,
    (
        Member("conv.weight", 0, block(4, 1)),
        Member("conv.bias", 0, block(4, 1)),
        Member("fc.weight", 1, block(4, 2)),
    ),
)
INPUT = ChannelGroup("input", 2, (Member("conv.weight", 1, block(2, 1)),))
TAIL = ChannelGroup(
    "tail", 3, (Member("conv.weight", 2, block(3, 1)), Member("fc.weight", 0, block(3, 1, 2)))
)
GROUPS = (CONV, INPUT, TAIL)


def make(conv: list[int], inputs: list[int] | None = None, tail: list[int] | None = None) -> IndexMap:
    channels = {
        "conv": np.array(conv),
        "input": np.array([0, 1] if inputs is None else inputs),
        "tail": np.array([0, 1, 2] if tail is None else tail),
    }
    return index_map(ModelSchema.of(tensors(), set(tensors())), GROUPS, channels)


def test_shrink_takes_the_positions_of_the_kept_channels() -> None:
    small = make([1, 3]).shrink(tensors())
    np.testing.assert_array_equal(small["conv.bias"], [2, 4])
    np.testing.assert_array_equal(small["conv.weight"], tensors()["conv.weight"][[1, 3]])
    np.testing.assert_array_equal(small["fc.weight"][0], [3, 4, 7, 8])
    assert small["steps"] == 7
    assert small["steps"].shape == ()


def test_positions_in_no_group_stay() -> None:
    small = make([0, 1, 2, 3], tail=[1]).shrink(tensors())
    np.testing.assert_array_equal(small["fc.weight"], tensors()["fc.weight"][[0, 1, 3]])


def test_shapes_and_schema_are_those_of_the_shrunk_tensors() -> None:
    kept = make([0, 2, 3], inputs=[1], tail=[0, 2])
    small = kept.shrink(tensors())
    assert kept.shapes == {name: array.shape for name, array in small.items()}
    assert kept.schema.check(small) == small
    assert kept.schema.digest != kept.full.digest


def test_all_channels_kept_is_the_identity_and_copies() -> None:
    kept = make([0, 1, 2, 3])
    full = tensors()
    small = kept.shrink(full)
    assert kept.schema == kept.full
    for name, array in full.items():
        np.testing.assert_array_equal(small[name], array)
        assert not np.shares_memory(small[name], array)


subsets = st.tuples(
    *(st.sets(st.integers(0, n - 1), min_size=1).map(sorted) for n in (4, 2, 3)),
)


@given(subsets)
def test_expand_restores_every_kept_position_and_fills_the_rest(chosen: tuple[list[int], ...]) -> None:
    kept = make(*chosen)
    full = tensors()
    back = kept.expand(kept.shrink(full), fill=-1)
    rows, cols, taps = chosen
    inside = np.zeros((4, 2, 3), dtype=bool)
    inside[np.ix_(rows, cols, taps)] = True
    np.testing.assert_array_equal(back["conv.weight"], np.where(inside, full["conv.weight"], -1))
    again = kept.shrink(back)
    for name, array in kept.shrink(full).items():
        np.testing.assert_array_equal(again[name], array)
        assert again[name].flags.c_contiguous
        assert back[name].dtype == full[name].dtype


def test_sums_and_counts_give_the_mean_over_those_who_cover_an_element() -> None:
    maps = [make([0, 1]), make([1, 2]), make([1])]
    sums = {name: np.zeros(array.shape, dtype=np.int64) for name, array in tensors().items()}
    counts = {name: np.zeros(array.shape, dtype=np.int64) for name, array in tensors().items()}
    for value, (kept, weight) in enumerate(zip(maps, (1, 3, 4), strict=True), start=1):
        kept.add_into(sums, {n: np.full(s, value * weight, dtype=np.int64) for n, s in kept.shapes.items()})
        kept.add_scalar(counts, weight)
    np.testing.assert_array_equal(sums["conv.bias"], [1, 1 + 6 + 12, 6, 0])
    np.testing.assert_array_equal(counts["conv.bias"], [1, 1 + 3 + 4, 3, 0])
    np.testing.assert_array_equal(counts["fc.weight"][0], [1, 1, 8, 8, 3, 3, 0, 0])
    assert sums["steps"] == 19
    assert counts["steps"] == 8


@given(subsets, st.permutations(range(3)))
def test_integer_sums_do_not_depend_on_the_order(chosen: tuple[list[int], ...], order: list[int]) -> None:
    maps = [make(*chosen), make([0, 3], tail=[0, 2]), make([2])]
    values = [{n: np.full(s, 10**i, dtype=np.int64) for n, s in m.shapes.items()} for i, m in enumerate(maps)]
    totals = []
    for sequence in (range(3), order):
        total = {name: np.zeros(array.shape, dtype=np.int64) for name, array in tensors().items()}
        for i in sequence:
            maps[i].add_into(total, values[i])
        totals.append(total)
    for name in totals[0]:
        np.testing.assert_array_equal(totals[0][name], totals[1][name])


def test_assign_writes_kept_positions_and_leaves_the_others() -> None:
    full = tensors()
    kept = make([0, 3], inputs=[1])
    kept.assign(full, {name: np.zeros(shape, np.float32) for name, shape in kept.shapes.items()})
    expected = tensors()["conv.weight"]
    expected[[0, 3], 1] = 0
    np.testing.assert_array_equal(full["conv.weight"], expected)
    np.testing.assert_array_equal(full["conv.bias"], [0, 2, 3, 0])


def test_a_tensor_that_numpy_would_stretch_is_refused() -> None:
    kept = make([0, 1])
    small = kept.shrink(tensors())
    small["conv.bias"] = np.zeros(1, np.float32)
    with pytest.raises(PayloadError, match=r"'conv.bias' has shape \[1\], must be \[2\]") as caught:
        kept.expand(small)
    assert caught.value.reason == "schema"
    del small["conv.bias"]
    with pytest.raises(PayloadError, match="is missing"):
        kept.assign(tensors(), small)


def test_a_group_refuses_positions_of_another_size() -> None:
    with pytest.raises(BadInput, match=r"must be \(3, k\)"):
        ChannelGroup("g", 3, (Member("t", 0, block(2, 1)),))
    with pytest.raises(BadInput, match="min_channels is 4"):
        ChannelGroup("g", 3, (), min_channels=4)


def test_magnitude_is_the_norm_over_all_kernels_and_matrices_of_a_channel() -> None:
    full = tensors()
    scores = magnitude_scores((CONV,), full)["conv"]
    for channel in range(4):
        own = np.concatenate(
            [
                full["conv.weight"][channel].ravel(),
                full["fc.weight"][:, 2 * channel : 2 * channel + 2].ravel(),
            ]
        )
        assert scores[channel] == pytest.approx(np.linalg.norm(own))
