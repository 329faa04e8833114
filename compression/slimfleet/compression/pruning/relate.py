"""Relations between labels: what one operator says about the channels of its operands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from slimfleet.compression.pruning.channels import Channels, Ids
from slimfleet.compression.pruning.shadow import Labels, compact

MOST_AT_ONCE = 1 << 22
"""Labels that are compared at once: some 100 MB."""


class TooMuchWork(Exception):
    """Following the channels takes more work than is allowed."""


class Relations:
    """Joins and fixes channels, and counts the labels looked at."""

    def __init__(self, channels: Channels, limit: int) -> None:
        self.channels = channels
        self.multiplications = 0
        """Made by the model, counted by the rules of matrix products and convolutions."""
        self._work = 0
        self._limit = limit

    def spend(self, work: int) -> None:
        """Count labels looked at; raises TooMuchWork beyond the limit."""
        self._work += work
        if self._work > self._limit:
            raise TooMuchWork

    def fix(self, labels: Labels | Iterable[Tensor], reason: str) -> None:
        """Keep whole whatever is labelled."""
        for slot in labels.channels if isinstance(labels, Labels) else labels:
            self.channels.fix(self._unique(compact(slot)), reason)

    def read(self, slots: Iterable[Tensor]) -> None:
        """Note that compact `slots` are mixed into something else."""
        for slot in slots:
            self.channels.read(self._unique(slot))

    def together(self, operands: Sequence[Labels], shape: Sequence[int]) -> Labels:
        """The labels of `shape` that operands combined element by element, and broadcast, give.

        Two labellings are independent where every combination of their labels occurs, as those of rows and of
        columns do: then the result has both. Otherwise labels that meet are joined.
        """
        channels: list[Tensor] = []
        places: list[Tensor] = []
        compacted = [_aligned(operand, len(shape)) for operand in operands]
        for i, operand in enumerate(compacted):
            earlier = len(channels)
            for slot in operand.channels:
                for other in [*compacted[:i], *compacted[i + 1 :]]:
                    self._meet_places(slot, other)
                for k in range(earlier):
                    if self._meet(channels[k], slot):
                        channels[k] = _filled(channels[k], slot)
                        break
                else:
                    channels.append(slot)
            _add(places, operand.places)
        # Labels joined by now repeat along more dimensions, which keeps slots small.
        channels = [self.rooted(slot) if len(varying(slot)) > 1 else slot for slot in channels]
        self.fix([s for s in channels if not varying(s)], "all of a tensor depends on each of them")
        fixed = [slot for slot in channels if self._is_fixed(slot)]
        channels = [slot for slot in channels if not any(slot is f for f in fixed)]
        _add(places, fixed)
        return Labels(tuple(s.expand(*shape) for s in channels), tuple(s.expand(*shape) for s in places))

    def along(self, slot: Tensor, dims: Iterable[int]) -> Tensor:
        """Join the labels of a compact slot along `dims`; the slot with these dimensions cut to size 1."""
        for dim in dims:
            if slot.shape[dim] > 1:
                first = slot.amax(dim, keepdim=True)
                self._join(*_broadcast(slot, first))
                slot = first
        return slot

    def reduced(self, labels: Labels, dims: Iterable[int], reason: str) -> Labels:
        """Labels after something was computed over `dims`, which stay with size 1.

        Channels that lie along other dimensions too are joined along these; others are fixed.
        """
        dims = set(dims)
        kept = []
        for slot in map(compact, labels.channels):
            if varying(slot) and varying(slot) <= dims:
                self.fix([slot], reason)
            else:
                kept.append(self.along(slot, dims & varying(slot)))
        shape = [1 if dim in dims else size for dim, size in enumerate(_shape(labels))]
        places = [_first(place, dims) for place in labels.places]
        return Labels(
            tuple(s.expand(shape) for s in kept),
            tuple(p.expand(shape) for p in places if varying(compact(p))),
        )

    def coupled(self, labels: Labels, dims: Iterable[int], reason: str) -> Labels:
        """Labels after every element came to depend on all along `dims`, as in a softmax.

        Channels that lie along other dimensions too are joined along these; others are fixed.
        """
        dims, shape = set(dims), _shape(labels)
        kept: list[Tensor] = []
        places = list(map(compact, labels.places))
        for slot in map(compact, labels.channels):
            if varying(slot) and varying(slot) <= dims:
                self.fix([slot], reason)
                _add(places, [slot])
            else:
                kept.append(self.along(slot, dims & varying(slot)))
        return Labels(tuple(s.expand(shape) for s in kept), tuple(p.expand(shape) for p in places))

    def contracted(self, operands: Sequence[Labels], shape: Sequence[int], dim: int) -> Labels:
        """Labels after operands were multiplied element by element and summed over `dim`, which stays with size 1.

        Channels that lie along `dim` alone are read and gone; those that lie along other dimensions too are joined
        along it.
        """
        product = self.together(operands, shape)
        kept = []
        for slot in map(compact, product.channels):
            if dim not in varying(slot):
                kept.append(slot)
                continue
            slot = _completed(slot, dim)
            self.channels.read(self._unique(slot))
            if varying(slot) != {dim}:
                kept.append(self.along(slot, [dim]))
        size = [1 if d == dim else n for d, n in enumerate(shape)]
        places = [_first(place, {dim}) for place in product.places]
        return Labels(
            tuple(s.expand(size) for s in kept), tuple(p.expand(size) for p in places if varying(compact(p)))
        )

    def rooted(self, slot: Tensor) -> Tensor:
        """A slot with each label replaced by the one that stands for its class."""
        slot = compact(slot, checked=False)
        self.spend(slot.numel())
        labels, inverse = np.unique(slot.numpy(), return_inverse=True)
        return torch.from_numpy(self.channels.roots_of(labels)[inverse].reshape(tuple(slot.shape)))

    def _meet(self, a: Tensor, b: Tensor) -> bool:
        """Join the labels of two compact slots where they depend on one another; whether they do."""
        if not varying(a) & varying(b):
            return False
        if a.shape == b.shape and torch.equal(a, b):
            return True
        pairs = self._dependent(a, b)
        if pairs is None:
            return False
        self.channels.join(pairs[(pairs != 0).all(axis=1)])
        return True

    def _meet_places(self, slot: Tensor, other: Labels) -> None:
        """Fix channels that meet data of other places which no channel labels."""
        for place in other.places:
            shared = varying(slot) & varying(place)
            if not shared:
                continue
            bare = _uncovered(slot, [s for s in other.channels if varying(s) & varying(slot)])
            if not bool(bare.any()):
                continue
            if self._dependent(slot, place, places=True) is None:
                continue
            if varying(slot) - shared:
                self.along(slot, shared)
            else:
                self.fix([bare], "they meet data whose size is fixed")

    def _is_fixed(self, slot: Tensor) -> bool:
        return self.channels.are_fixed(self._unique(slot))

    def _dependent(self, a: Tensor, b: Tensor, places: bool = False) -> Ids | None:
        """The pairs of labels that meet, or None where the two slots are independent; `b` may be `places`."""
        pairs = self._pairs(a, b)
        labels = pairs[:, :1] if places else pairs
        labels[:] = self.channels.roots_of(labels)
        pairs = np.unique(pairs, axis=0)
        combinations = len(np.unique(pairs[:, 0])) * len(np.unique(pairs[:, 1]))
        return None if len(pairs) == combinations else pairs

    def _pairs(self, a: Tensor, b: Tensor) -> Ids:
        a, b = _broadcast(a, b)
        self.spend(a.numel())
        met = [np.unique(((x << 32) | y).numpy()) for x, y in _pieces(a, b)]
        codes = met[0] if len(met) == 1 else np.unique(np.concatenate(met))
        pairs: Ids = np.stack([codes >> 32, codes & 0xFFFFFFFF], axis=1)
        return pairs

    def _join(self, a: Tensor, b: Tensor) -> None:
        pairs = self._pairs(a, b)
        self.channels.join(pairs[(pairs != 0).all(axis=1)])

    def _unique(self, slot: Tensor) -> Ids:
        self.spend(slot.numel())
        labels: Ids = np.unique(slot.numpy())
        labelled: Ids = labels[labels != 0]
        return labelled


def _pieces(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Two tensors of one shape in pieces of at most MOST_AT_ONCE elements."""
    if a.numel() <= MOST_AT_ONCE:
        yield a, b
        return
    dim = max(range(a.dim()), key=lambda d: a.shape[d])
    middle = a.shape[dim] // 2
    for start, size in ((0, middle), (middle, a.shape[dim] - middle)):
        yield from _pieces(a.narrow(dim, start, size), b.narrow(dim, start, size))


def _broadcast(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    shape = [max(pair) for pair in zip(a.shape, b.shape, strict=True)]
    return a.expand(shape), b.expand(shape)


def varying(slot: Tensor) -> set[int]:
    """The dimensions along which a compact slot varies."""
    return {dim for dim, size in enumerate(slot.shape) if size > 1}


def _shape(labels: Labels) -> tuple[int, ...]:
    return (
        tuple(next(iter((*labels.channels, *labels.places))).shape)
        if labels.channels or labels.places
        else ()
    )


def _aligned(labels: Labels, ndim: int) -> Labels:
    """Labels in compact form, with `ndim` dimensions."""
    return labels.map(lambda slot: compact(slot)[(None,) * (ndim - slot.dim())])


def _filled(a: Tensor, b: Tensor) -> Tensor:
    """The labels of `a`, and those of `b` where `a` has none."""
    a, b = _broadcast(a, b)
    return compact(torch.where(a == 0, b, a), checked=False)


def _completed(slot: Tensor, dim: int) -> Tensor:
    """A compact slot whose labels tell `dim` alone, without the elements that have none, such as padding."""
    along = slot.amax([d for d in range(slot.dim()) if d != dim], keepdim=True)
    return along if bool(((slot == 0) | (slot == along)).all()) else slot


def _uncovered(slot: Tensor, covers: Iterable[Tensor]) -> Tensor:
    """The labels of `slot` where none of `covers` has any."""
    for cover in covers:
        slot, cover = _broadcast(slot, cover)
        slot = torch.where(cover == 0, slot, 0)
    return slot


def _add(places: list[Tensor], more: Iterable[Tensor]) -> None:
    """Add the places that lie along a dimension which none of those known does."""
    for place in more:
        if varying(place) and not any(varying(place) <= varying(known) for known in places):
            places.append(place)


def _first(place: Tensor, dims: Iterable[int]) -> Tensor:
    for dim in dims:
        place = place.narrow(dim, 0, 1)
    return place
