"""Trimmed mean: a streaming mean of updates, in each coordinate without its largest and smallest values.

A coordinate that c devices trained loses the t = ceil(trim * c) largest and the t smallest of their values, at most so
many that one or two are left, whose mean is the median (Yin et al. 2018, arXiv 1803.01498, definitions 1 and 2). As
sub-models differ in width, coordinates differ in c. Whatever up to t devices send, each coordinate stays within the
range of the other devices' values. Every device counts alike, so that claiming examples buys nothing.

It does not depend on the order of arrival: the sum is one of integers (`CoveredSum`), and the largest and smallest
values of a set are the same in any order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression import ModelSchema, Tensors
from slimfleet.compression.pruning import IndexMap
from slimfleet.coordinator.learning.covered_sum import CoveredSum, units


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
        self._sum = CoveredSum(schema, most_updates, model, np.int32)
        self._trim = trim
        slots = int(self._trimmed(np.array(most_updates)))
        self._largest: Tensors = {}
        self._smallest: Tensors = {}
        for t in schema.tensors:
            for tails, largest in ((self._largest, True), (self._smallest, False)):
                empty = _empty(np.dtype(t.dtype), largest)
                tails[t.name] = np.full((slots, *t.shape), empty, empty.dtype)

    @property
    def updates(self) -> int:
        """Number of those taken."""
        return self._sum.updates

    def add(self, update: Tensors, index_map: IndexMap, examples: int) -> None:
        """Add one device's `update` (shrunk shapes, dtypes of the schema) at `index_map`; its `examples` do not count.

        Raises PayloadError("norm") as `CoveredSum` does; nothing is added then.
        """
        for name, each in self._sum.add(update, index_map).items():
            high = low = each
            if name in self._sum.unset:
                left = self._sum.left_unset(name, each, index_map)
                high, low = (np.where(left, _empty(each.dtype, largest), each) for largest in (True, False))
            place = index_map.selectors[name]
            _keep(self._largest[name], place, high, np.maximum, np.minimum)
            _keep(self._smallest[name], place, low, np.minimum, np.maximum)

    def mean(self, absent_weight: float = 0.0) -> Tensors:
        """The trimmed mean in full shapes, float64; zero where no device trained the element.

        `absent_weight`, 0..1, weighs a device that did not train an element, as one that left it unchanged. Such
        devices do not take part in the trimming.
        """
        sums = self._sum
        mean: Tensors = {}
        for name, total in sums.total.items():
            count, kept = sums.weight[name], total.copy()
            trimmed = self._trimmed(count)
            for tails in (self._largest[name], self._smallest[name]):
                for i in range(len(tails)):
                    kept -= units(
                        np.where(i < trimmed, tails[i], np.zeros((), tails.dtype)), sums.kinds[name]
                    )
            mean[name] = sums.divided(name, kept, count - 2 * trimmed, absent_weight)
        return mean

    def covered(self) -> float:
        """Share of the elements that at least one device trained, 0..1."""
        return self._sum.covered()

    def _trimmed(self, count: NDArray[Any]) -> NDArray[np.int32]:
        """How many values of so many are left out at each end."""
        # 0.1 * 30 is 3.0000000000000004: a hair above a whole number is that number.
        wanted = np.ceil(self._trim * count - 1e-9)
        return np.asarray(np.maximum(np.minimum(wanted, (count - 1) // 2), 0), np.int32)


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
