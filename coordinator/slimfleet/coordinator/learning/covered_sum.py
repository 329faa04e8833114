"""Covered sums: updates added up in integers, and with what weight each element was trained.

Every value is added as an integer: a float as a multiple of 2**-28, a counter or flag as it is. Integer sums are exact
and associative, so any order gives the same bytes; they stream, so memory does not grow with the number of devices; and
they are what secure aggregation works on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression import ModelSchema, PayloadError, Tensors
from slimfleet.compression.difference import unset
from slimfleet.compression.pruning import IndexMap
from slimfleet.compression.schema import TensorKind

__all__ = ["CoveredSum", "units"]

FRACTION_BITS = 28
"""Resolution of the sum of floats: 2**-28, some 16 times finer than float32 resolves a value near 1."""

HEADROOM = 2.0**62
"""Largest sum: half of int64's range, so that rounding cannot decide an overflow."""


class CoveredSum:
    """Add at most `most_updates` updates of `model` in any order.

    Each has an equal share of the sum's range, so that whether one is refused does not depend on the others. Where the
    model is NaN or infinite, an update other than 0 sets a value, and only such updates count.
    """

    def __init__(
        self,
        schema: ModelSchema,
        most_updates: int,
        model: Tensors | None = None,
        weights: type[np.signedinteger[Any]] = np.int64,
    ) -> None:
        """Begin with nothing. `weights` is the dtype of weights, which bounds the sum of them."""
        self.kinds = {t.name: t.kind for t in schema.tensors}
        self.total: Tensors = {t.name: np.zeros(t.shape, np.int64) for t in schema.tensors}
        """Full shapes, int64."""
        self.weight: Tensors = {t.name: np.zeros(t.shape, weights) for t in schema.tensors}
        """Of the updates that trained each element; full shapes."""
        self.unset = _unset_buffers(schema, model)
        """Where the model is NaN or infinite; buffers alone that are so somewhere."""
        self.updates = self.whole_weight = 0
        self._share = HEADROOM / max(most_updates, 1)
        self._most = most_updates

    def add(self, update: Tensors, index_map: IndexMap, weight: int = 1) -> Tensors:
        """Add one device's `update` (shrunk shapes, dtypes of the schema) at `index_map`. Returns its values as added.

        Raises PayloadError("norm") where they are so large that the sum could overflow; nothing is added then.
        Statistics of data on a large scale are cut instead: they move as far as the sum has room, round by round.
        """
        if self.updates == self._most:
            raise ValueError(f"this mean was made for {self._most} updates, here is one more")
        values = {name: self._cut(name, _plain(each), weight) for name, each in update.items()}
        for name, each in values.items():
            self._check(name, each, weight)
        index_map.add_into(
            self.total, {name: units(each, self.kinds[name]) * weight for name, each in values.items()}
        )
        index_map.add_scalar(self.weight, weight)
        for name in self.unset:
            place = index_map.selectors[name]
            self.weight[name][place] -= weight * self.left_unset(name, values[name], index_map)
        self.whole_weight += weight
        self.updates += 1
        return values

    def left_unset(self, name: str, values: NDArray[Any], index_map: IndexMap) -> NDArray[np.bool_]:
        """Where an update of `unset` tensor `name` leaves what is NaN or infinite as it is; shrunk shape."""
        return np.asarray(self.unset[name][index_map.selectors[name]] & (values == 0))

    def divided(
        self, name: str, total: NDArray[Any], weight: NDArray[Any], absent_weight: float
    ) -> NDArray[np.float64]:
        """A sum of values of tensor `name` over their `weight`, and over `absent_weight`, 0..1, times the weight of the
        devices that did not train an element; zero where there is neither."""
        absent = absent_weight * (self.whole_weight - self.weight[name])
        if name in self.unset:
            absent = np.where(self.unset[name], 0, absent)
        bits = _fraction_bits(self.kinds[name])
        return np.asarray(total / (np.maximum(weight + absent, 1) * 2.0**bits))

    def covered(self) -> float:
        """Share of the elements that at least one device trained, 0..1."""
        trained = sum(int(np.count_nonzero(weight)) for weight in self.weight.values())
        return trained / max(sum(weight.size for weight in self.weight.values()), 1)

    def _cut(self, name: str, values: NDArray[Any], weight: int) -> NDArray[Any]:
        if self.kinds[name] != "buffer":
            return values
        room = 0.999 * self._share / weight / 2.0**FRACTION_BITS
        return np.asarray(np.clip(values.astype(np.float64), -room, room), values.dtype)

    def _check(self, name: str, values: NDArray[Any], weight: int) -> None:
        largest = float(np.max(np.abs(values.astype(np.float64)), initial=0.0))
        # Written so that NaN overflows too.
        if not weight * (largest * 2.0 ** _fraction_bits(self.kinds[name]) + 1) <= self._share:
            raise PayloadError(
                "norm", f"tensor {name!r}: values up to {largest:.3g}, of weight {weight}, overflow the sum"
            )


def units(values: NDArray[Any], kind: TensorKind) -> NDArray[np.int64]:
    """Values of a tensor of this kind as the integers that are added."""
    if kind == "integer":
        return values.astype(np.int64)
    return np.asarray(np.rint(values.astype(np.float64) * 2.0**FRACTION_BITS)).astype(np.int64)


def _unset_buffers(schema: ModelSchema, model: Tensors | None) -> Mapping[str, NDArray[np.bool_]]:
    if not model:
        return {}
    return {t.name: where for t in schema.of_kind("buffer") if (where := unset(model[t.name])).any()}


def _fraction_bits(kind: TensorKind) -> int:
    return 0 if kind == "integer" else FRACTION_BITS


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    """Values as numbers: changes of counters and flags in int64. That of an unsigned one wraps around, so that 255 in a
    byte is one less."""
    if values.dtype.kind == "f":
        return values
    return (values.view(f"i{values.itemsize}") if values.dtype.kind == "u" else values).astype(np.int64)
