"""Windows over channel groups: which channels a device gets, by position or importance, and their wire form."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, assert_never

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.errors import BadInput, PayloadError
from slimfleet.compression.pruning.groups import ChannelGroup
from slimfleet.compression.types import Channels

WindowPolicy = Literal["prefix", "rolling", "importance"]
"""The first channels (HeteroFL, Diao et al. 2021); a window that moves from round to round (FedRolex, Alam et
al. 2022); those of the highest score."""


def select_channels(
    groups: Sequence[ChannelGroup],
    width: float,
    policy: WindowPolicy,
    round_number: int = 0,
    scores: Mapping[str, NDArray[Any]] | None = None,
) -> Channels:
    """The channels of each group that a model of this `width` (0 < width <= 1) keeps, sorted.

    A group keeps width * size channels, rounded, at least its `min_channels`. Half a channel is rounded up and down in
    turn among groups of one size, so that all together keep their share: of ten groups of 3 attention heads five keep
    2 and five keep 1 at half width. A wider model keeps whatever a narrower one does. A rolling window moves by a
    sixteenth of the group a round. `scores` (group name -> one score a channel) is read by the policy
    "importance" alone; ties go to the lower channel. Raises BadInput on a width outside its range and on
    missing or non-finite scores.
    """
    if not 0 < width <= 1:
        raise BadInput(f"width is {width}, must be above 0 and at most 1")
    chosen = {}
    earlier: Counter[int] = Counter()
    for group in groups:
        count = max(group.min_channels, _rounded(width * group.size, earlier[group.size]))
        earlier[group.size] += 1
        match policy:
            case "prefix":
                chosen[group.name] = np.arange(count)
            case "rolling":
                chosen[group.name] = _rolling(group.size, count, round_number)
            case "importance":
                chosen[group.name] = _highest(_scores_of(group, scores), count)
            case _:
                assert_never(policy)
    return chosen


def _rounded(count: float, turn: int) -> int:
    """The nearest integer; of two that are as near, the even one in even turns, the odd one in odd turns."""
    nearest = round(count)
    return nearest if turn % 2 == 0 or count % 1 != 0.5 else math.floor(count) + math.ceil(count) - nearest


def pack_channels(groups: Sequence[ChannelGroup], channels: Channels) -> bytes:
    """One bit a channel, groups in order without gaps, lowest bit first, zero bits up to a whole byte."""
    masks = []
    for group in groups:
        mask = np.zeros(group.size, dtype=np.bool_)
        mask[channels[group.name]] = True
        masks.append(mask)
    bits = np.concatenate(masks) if masks else np.zeros(0, dtype=np.bool_)
    return np.packbits(bits, bitorder="little").tobytes()


def unpack_channels(groups: Sequence[ChannelGroup], data: bytes) -> Channels:
    """Inverse of `pack_channels`.

    Raises PayloadError("channels") on a wrong length, a set bit behind the last channel, or a group that
    keeps fewer than its `min_channels`.
    """
    total = sum(group.size for group in groups)
    if len(data) != (total + 7) // 8:
        raise PayloadError("channels", f"channel masks have {len(data)} bytes, must be {(total + 7) // 8}")
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8), bitorder="little")
    if bits[total:].any():
        raise PayloadError("channels", f"channel masks have bits set behind the last of {total} channels")
    channels = {}
    offset = 0
    for group in groups:
        kept = np.flatnonzero(bits[offset : offset + group.size])
        if len(kept) < group.min_channels:
            raise PayloadError(
                "channels",
                f"group {group.name!r} keeps {len(kept)} channels, the least is {group.min_channels}",
            )
        channels[group.name] = kept
        offset += group.size
    return channels


def _rolling(size: int, count: int, round_number: int) -> NDArray[np.intp]:
    # A step longer than the window would leave channels that no round ever covers.
    step = min(max(1, size // 16), count)
    return np.sort((round_number * step + np.arange(count)) % size)


def _highest(scores: NDArray[Any], count: int) -> NDArray[np.intp]:
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def _scores_of(group: ChannelGroup, scores: Mapping[str, NDArray[Any]] | None) -> NDArray[Any]:
    if scores is None or group.name not in scores:
        raise BadInput(
            f"policy 'importance' needs scores for group {group.name!r}: pass magnitude_scores(...)"
        )
    found = scores[group.name]
    if found.shape != (group.size,) or not np.isfinite(found).all():
        raise BadInput(f"scores of group {group.name!r} must be {group.size} finite numbers, one a channel")
    return found


def magnitude_scores(
    groups: Sequence[ChannelGroup], tensors: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[np.float64]]:
    """Group name -> L2 norm, one a channel, over everything the channel owns in kernels and matrices.

    The group importance of DepGraph (Fang et al., CVPR 2023, section 3.3) with equal weights. Vectors are
    left out: a bias or a running mean does not say how much a channel is used.
    """
    return {group.name: _norms(group, tensors) for group in groups}


def _norms(group: ChannelGroup, tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    squares = np.zeros(group.size)
    for member in group.members:
        tensor = tensors[member.tensor]
        if tensor.ndim < 2:
            continue
        others = tuple(dim for dim in range(tensor.ndim) if dim != member.dim)
        by_position = np.square(tensor, dtype=np.float64).sum(axis=others)
        squares += by_position[member.positions].sum(axis=1)
    return np.sqrt(squares)
