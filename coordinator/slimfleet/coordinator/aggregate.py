"""Streaming mean of updates, weighted by coverage, that does not depend on the order of arrival.

Every value is added as an integer multiple of 2**-28. Integer sums are exact and associative, so any order gives the
same bytes; they stream, so memory does not grow with the number of devices; and they are what secure aggregation
works on. Where devices train parts of the model, each element is divided by the examples of those that trained it
(HeteroFL, Diao et al. 2021, arXiv 2010.01264, eq. 3; weights as in FedAvg, McMahan et al. 2017, alg. 1).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression import ModelSchema, PayloadError, Tensors
from slimfleet.compression.pruning import IndexMap

FRACTION_BITS = 28
"""Resolution of the sum: 2**-28, some 16 times finer than float32 resolves a value near 1."""

_HEADROOM = 2**62


class CoverageMean:
    """Add updates in any order, then read their mean. Holds two int64 arrays a tensor, whatever the fleet."""

    def __init__(self, schema: ModelSchema) -> None:
        self._schema = schema
        self._sum = {t.name: np.zeros(t.shape, np.int64) for t in schema.tensors}
        self._weight = {t.name: np.zeros(t.shape, np.int64) for t in schema.tensors}
        self._bound = 0
        self.updates = 0

    def add(self, update: Tensors, places: IndexMap, weight: int) -> None:
        """Add one device's `update` (shrunk shapes, any real dtype) at its places, `weight` examples strong.

        Raises PayloadError("norm") where the sum could overflow; nothing is added then.
        """
        largest = max((float(np.max(np.abs(v))) for v in update.values() if v.size), default=0.0)
        bound = self._bound + weight * (int(largest * 2**FRACTION_BITS) + 1)
        if bound >= _HEADROOM:
            raise PayloadError(
                "norm", f"values up to {largest:.3g} from {weight} examples would overflow the sum"
            )
        self._bound = bound
        places.add_into(self._sum, {name: _fixed_point(v) * weight for name, v in update.items()})
        places.add_scalar(self._weight, weight)
        self.updates += 1

    def mean(self) -> Tensors:
        """The mean update in full shapes, float64; zero where no device trained the element."""
        result: Tensors = {}
        for name, total in self._sum.items():
            weight = self._weight[name]
            result[name] = total / (np.maximum(weight, 1) * float(2**FRACTION_BITS))
        return result

    def covered(self) -> float:
        """Share of the elements that at least one device trained, 0..1."""
        trained = sum(int(np.count_nonzero(w)) for w in self._weight.values())
        return trained / max(self._schema.elements, 1)


def _fixed_point(values: NDArray[np.generic]) -> NDArray[np.int64]:
    scaled: NDArray[np.float64] = values.astype(np.float64) * 2**FRACTION_BITS
    return np.rint(scaled).astype(np.int64)
