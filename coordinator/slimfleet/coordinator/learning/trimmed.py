"""Trimmed mean: a streaming mean of updates, in each coordinate without its largest and smallest values.

A coordinate that c devices trained loses the t = ceil(trim * c) largest and the t smallest of their values, at most so
many that one or two are left, whose mean is the median (Yin et al. 2018, arXiv 1803.01498, definitions 1 and 2). As
sub-models differ in width, coordinates differ in c. Whatever up to t devices send, each coordinate stays within the
range of the other devices' values. Every device counts alike, so that claiming examples buys nothing.

It does not depend on the order of arrival: the sum is one of integers, as in `aggregate`, and the largest and smallest
values of a set are the same in any order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression import ModelSchema, PayloadError, Tensors
from slimfleet.compression.pruning import IndexMap
from slimfleet.coordinator.learning.aggregate import (
    HEADROOM,
    fraction_bits,
    overflowing,
    share_covered,
    units,
    unset_buffers,
)


class TrimmedMean:
    """Add at most `most_updates` updates in any order, then read their trimmed mean.

    Holds, for each element of the model, a sum of 8 bytes, a count of 4, and 2 * t values of the largest t that
    `most_updates` make possible: in float32 8 * t bytes, which for the median is as much as all updates together.
    """

    def __init__(
        self, schema: ModelSchema, most_updates: int, model: Tensors | None = None, trim: float = 0.5
    ) -> None:
        """Begin a mean of updates of `model`. `trim`, 0..0.5, is the share that each end loses: 0.5 is the median.
        Where the model is NaN or infinite, an update other than 0 sets a value, and only such updates count."""
        self._kinds = {t.name: t.kind for t in schema.tensors}
        self._sum = {t.name: np.zeros(t.shape, np.int64) for t in schema.tensors}
        self._count = {t.name: np.zeros(t.shape, np.int32) for t in schema.tensors}
        self._unset = unset_buffers(schema, model)
        self._trim, self._most = trim, most_updates
        self._share = HEADROOM / max(most_updates, 1)
        slots = int(self._trimmed(np.array(most_updates)))
        self._largest: Tensors = {}
        self._smallest: Tensors = {}
        for t in schema.tensors:
            for tails, largest in ((self._largest, True), (self._smallest, False)):
                empty = _empty(np.dtype(t.dtype), largest)
                tails[t.name] = np.full((slots, *t.shape), empty, empty.dtype)
        self.updates = 0

    def add(self, update: Tensors, index_map: IndexMap, examples: int) -> None:
        """Add one device's `update` (shrunk shapes, dtypes of the schema) at `index_map`; its `examples` do not count.

        Raises PayloadError("norm") where its values are so large that the sum could overflow; nothing is added then.
        Statistics of data on a large scale are cut to what the sum has room for.
        """
        if self.updates == self._most:
            raise ValueError(f"this mean was made for {self._most} updates, here is one more")
        values = {name: self._cut(name, _plain(each)) for name, each in update.items()}
        for name, each in values.items():
            bits = fraction_bits(self._kinds[name])
            if (largest := overflowing(each, bits, self._share)) is not None:
                raise PayloadError("norm", f"tensor {name!r}: values up to {largest:.3g} overflow the sum")
        index_map.add_into(self._sum, {name: units(each, self._kinds[name]) for name, each in values.items()})
        index_map.add_scalar(self._count, 1)
        for name, each in values.items():
            place = index_map.selectors[name]
            high = low = each
            if name in self._unset:
                left_out = self._unset[name][place] & (each == 0)
                self._count[name][place] -= left_out
                high, low = (
                    np.where(left_out, _empty(each.dtype, largest), each) for largest in (True, False)
                )
            _keep(self._largest[name], place, high, np.maximum, np.minimum)
            _keep(self._smallest[name], place, low, np.minimum, np.maximum)
        self.updates += 1

    def mean(self, absent_weight: float = 0.0) -> Tensors:
        """The trimmed mean in full shapes, float64; zero where no device trained the element.

        `absent_weight`, 0..1, weighs a device that did not train an element, as one that left it unchanged. Such
        devices do not take part in the trimming.
        """
        mean: Tensors = {}
        for name, total in self._sum.items():
            count, kind = self._count[name], self._kinds[name]
            trimmed, kept = self._trimmed(count), total.copy()
            for tails in (self._largest[name], self._smallest[name]):
                for i in range(len(tails)):
                    kept -= units(np.where(i < trimmed, tails[i], np.zeros((), tails.dtype)), kind)
            absent = absent_weight * (self.updates - count)
            counted = count - 2 * trimmed
            counted = counted + (np.where(self._unset[name], 0, absent) if name in self._unset else absent)
            mean[name] = np.asarray(kept / (np.maximum(counted, 1) * 2.0 ** fraction_bits(kind)))
        return mean

    def covered(self) -> float:
        """Share of the elements that at least one device trained, 0..1."""
        return share_covered(self._count)

    def _trimmed(self, count: NDArray[Any]) -> NDArray[np.int32]:
        """How many values of so many are left out at each end."""
        # 0.1 * 30 is 3.0000000000000004: a hair above a whole number is that number.
        wanted = np.ceil(self._trim * count - 1e-9)
        return np.asarray(np.maximum(np.minimum(wanted, (count - 1) // 2), 0), np.int32)

    def _cut(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        if self._kinds[name] != "buffer":
            return values
        room = 0.999 * self._share / 2.0 ** fraction_bits("buffer")
        return np.asarray(np.clip(values, -room, room), values.dtype)


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    """Values as they are compared: changes of counters and flags as signed numbers."""
    return values if values.dtype.kind == "f" else units(values, "integer")


def _empty(dtype: np.dtype[Any], largest: bool) -> NDArray[Any]:
    """What any value displaces among the largest, or the smallest, values: one element, of the dtype of the tails."""
    if dtype.kind == "f":
        return np.array(-np.inf if largest else np.inf, dtype)
    limits = np.iinfo(np.int64)
    return np.array(limits.min if largest else limits.max, np.int64)


def _keep(tails: NDArray[Any], place: Any, values: NDArray[Any], better: np.ufunc, worse: np.ufunc) -> None:
    """Sort `values` into the `tails` (slots, *full shape) at `place`, the best first; the worst falls out."""
    rest = values
    for i in range(len(tails)):
        slot = tails[i, ...]
        held = slot[place]
        slot[place], rest = better(held, rest), worse(held, rest)
