import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from slimfleet.compression.errors import BadInput, PayloadError
from slimfleet.compression.pruning import (
    ChannelGroup,
    Member,
    WindowPolicy,
    pack_channels,
    select_channels,
    unpack_channels,
)


def group(size: int, min_channels: int = 1, name: str = "g") -> ChannelGroup:
    return ChannelGroup(name, size, (Member("t", 0, np.arange(size)[:, None]),), min_channels)


widths = st.floats(0.001, 1)


@given(
    st.integers(1, 200),
    widths,
    st.sampled_from(["prefix", "rolling", "importance"]),
    st.integers(0, 10_000),
    st.data(),
)
def test_every_window_is_sorted_distinct_and_as_wide_as_the_plan(
    size: int, width: float, policy: WindowPolicy, round_number: int, data: st.DataObject
) -> None:
    least = data.draw(st.integers(1, size))
    scores = {"g": np.random.default_rng(round_number).normal(size=size)}
    kept = select_channels((group(size, least),), width, policy, round_number, scores)["g"]
    assert len(kept) == max(least, round(width * size))
    assert (np.diff(kept) > 0).all()
    assert kept[0] >= 0
    assert kept[-1] < size


def test_half_a_channel_is_rounded_in_turn() -> None:
    groups = [group(3, name=str(i)) for i in range(4)]
    kept = select_channels([*groups[:2], group(8, name="8"), *groups[2:]], 0.5, "prefix")
    assert {name: len(channels) for name, channels in kept.items()} == {
        "0": 2,
        "1": 1,
        "8": 4,
        "2": 2,
        "3": 1,
    }


@given(st.lists(st.integers(1, 9), max_size=8), widths, widths)
@example([3, 3], 0.5, 0.6)
def test_a_wider_model_holds_a_narrower_one(sizes: list[int], a: float, b: float) -> None:
    groups = [group(size, name=str(i)) for i, size in enumerate(sizes)]
    narrow, wide = (select_channels(groups, width, "prefix") for width in sorted((a, b)))
    assert all(set(narrow[name]) <= set(wide[name]) for name in narrow)


@given(st.integers(1, 100), widths)
@example(64, 0.01)
def test_rolling_windows_cover_every_channel(size: int, width: float) -> None:
    seen = set()
    for round_number in range(size):
        seen.update(select_channels((group(size),), width, "rolling", round_number, None)["g"].tolist())
    assert seen == set(range(size))


def test_rolling_moves_by_a_sixteenth_and_wraps() -> None:
    for round_number, expected in [(0, range(8)), (1, range(2, 10)), (14, [0, 1, 2, 3, *range(28, 32)])]:
        kept = select_channels((group(32),), 0.25, "rolling", round_number)["g"]
        np.testing.assert_array_equal(kept, list(expected))


def test_importance_keeps_the_highest_and_breaks_ties_by_index() -> None:
    scores = {"g": np.array([1.0, 5.0, 3.0, 3.0, 3.0])}
    np.testing.assert_array_equal(select_channels((group(5),), 0.6, "importance", 0, scores)["g"], [1, 2, 3])


def test_prefix_ignores_the_round() -> None:
    np.testing.assert_array_equal(select_channels((group(8),), 0.5, "prefix", 9)["g"], [0, 1, 2, 3])


@pytest.mark.parametrize("width", [0.0, -0.5, 1.01, float("nan")])
def test_a_width_outside_its_range_is_refused(width: float) -> None:
    with pytest.raises(BadInput, match="must be above 0 and at most 1"):
        select_channels((group(4),), width, "prefix")


@pytest.mark.parametrize("scores", [None, {}, {"g": np.ones(3)}, {"g": np.array([1, np.nan, 1, 1])}])
def test_importance_without_usable_scores_is_refused(scores: dict[str, np.ndarray] | None) -> None:
    with pytest.raises(BadInput, match="'g'"):
        select_channels((group(4),), 0.5, "importance", 0, scores)


@given(st.lists(st.integers(1, 40), max_size=5), st.data())
def test_channels_survive_the_wire(sizes: list[int], data: st.DataObject) -> None:
    groups = tuple(group(size, name=f"g{i}") for i, size in enumerate(sizes))
    chosen = {
        g.name: np.array(sorted(data.draw(st.sets(st.integers(0, g.size - 1), min_size=1)))) for g in groups
    }
    packed = pack_channels(groups, chosen)
    assert len(packed) == (sum(sizes) + 7) // 8
    unpacked = unpack_channels(groups, packed)
    assert list(unpacked) == [g.name for g in groups]
    for name, kept in chosen.items():
        np.testing.assert_array_equal(unpacked[name], kept)


def test_the_bytes_are_one_bit_a_channel_lowest_first() -> None:
    groups = (group(3, name="a"), group(7, name="b"))
    packed = pack_channels(groups, {"a": np.array([0, 2]), "b": np.array([0, 6])})
    assert packed == bytes([0b00001101, 0b00000010])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x0d", "have 1 bytes, must be 2"),
        (b"\x0d\x02\x00", "have 3 bytes, must be 2"),
        (b"\x0d\x06", "behind the last of 10"),
        (b"\x08\x00", "'a' keeps 0 channels"),
        (b"\x05\x00", "'b' keeps 0 channels"),
    ],
)
def test_other_bytes_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(PayloadError, match=message) as caught:
        unpack_channels((group(3, name="a"), group(7, name="b")), data)
    assert caught.value.reason == "channels"


def test_fewer_than_the_least_channels_are_refused() -> None:
    with pytest.raises(PayloadError, match="the least is 2"):
        unpack_channels((group(4, min_channels=2),), b"\x01")
