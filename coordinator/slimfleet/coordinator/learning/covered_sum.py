"""Covered sums: updates added up in integers, and with what weight each element was trained.

Every value is added as an integer: a float as a multiple of 2**-28, a counter or flag as it is. Integer sums are exact
and associative, so any order gives the same bytes; they stream, so memory does not grow with the number of devices; and
they are what secure aggregation works on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression import ModelSchema, PayloadError, Tensors
from slimfleet.compression.difference import unset
from slimfleet.compression.pruning import IndexMap
from slimfleet.compression.schema import TensorKind

__all__ = ["CoveredSum", "PartialSum", "RowSum", "Scale", "units"]

FRACTION_BITS = 28
"""Resolution of the sum of floats: 2**-28, some 16 times finer than float32 resolves a value near 1."""

HEADROOM = 2.0**62
"""Largest sum: half of int64's range, so that rounding cannot decide an overflow."""

EXACT = 2.0**53
"""Sums of integers below it are exact in float64, which is added faster."""


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
        self.share = HEADROOM / max(most_updates, 1)
        self._most = most_updates

    def add(self, update: Tensors, index_map: IndexMap, weight: int = 1) -> Tensors:
        """Add one device's `update` (shrunk shapes, dtypes of the schema) at `index_map`. Returns its values as added.

        Raises PayloadError("norm") where they are so large that the sum could overflow; nothing is added then.
        Statistics of data on a large scale are cut instead: they move as far as the sum has room, round by round.
        """
        if self.updates == self._most:
            raise ValueError(f"this mean was made for {self._most} updates, here is one more")
        values = {name: self._cut(name, _plain(each), weight) for name, each in update.items()}
        index_map.add_into(self.total, _integers(values, self.kinds, self.share, weight))
        index_map.add_scalar(self.weight, weight)
        for name in self.unset:
            place = index_map.selectors[name]
            self.weight[name][place] -= weight * self.left_unset(name, values[name], index_map)
        self.whole_weight += weight
        self.updates += 1
        return values

    def add_sum(self, part: PartialSum, index_map: IndexMap) -> None:
        """Add what has been added up elsewhere, of a schema that has weights alone."""
        if self.updates + part.updates > self._most:
            raise ValueError(f"this mean was made for {self._most} updates, here are {part.updates} more")
        index_map.add_into(self.total, part.integers)
        index_map.add_scalar(self.weight, part.weight)
        self.whole_weight += part.weight
        self.updates += part.updates

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
        room = 0.999 * self.share / weight / 2.0**FRACTION_BITS
        return np.asarray(np.clip(values.astype(np.float64), -room, room), values.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How the updates of a mean become integers: the same wherever they are added up."""

    share: float
    """Of the sum's range, that of one update."""
    lot: int
    """Examples that have a weight of 1."""

    def weight(self, examples: int) -> int:
        """The weight of an update from so many examples."""
        return max(examples // self.lot, 1)


@dataclass(frozen=True, slots=True)
class PartialSum:
    """Updates of one width, added up as integers: exact, in any order and in any parts."""

    integers: Tensors
    """int64, in the shapes of the updates."""
    weight: int
    updates: int


class RowSum:
    """Updates of weights alone, of one width, added up many at once."""

    def __init__(self, scale: Scale) -> None:
        self._scale = scale
        self._sums: dict[str, NDArray[np.int64]] = {}
        self._weight = self._updates = 0

    def add(self, rows: Tensors, examples: Sequence[int]) -> list[PayloadError | None]:
        """Add updates [n, elements of a tensor], finite, from so many examples each. Returns a PayloadError("norm") for
        each that could overflow the sum and is left out."""
        weights = np.array([self._scale.weight(each) for each in examples], np.int64)
        errors: list[PayloadError | None] = [None] * len(examples)
        for name, array in rows.items():
            largest = np.maximum(array.max(axis=1, initial=0), -array.min(axis=1, initial=0)).tolist()
            for row, values in enumerate(largest):
                errors[row] = errors[row] or _overflow(name, values, int(weights[row]), self._scale.share)
        added = [row for row, error in enumerate(errors) if error is None]
        for name, array in rows.items():
            some = array if len(added) == len(errors) else array[added]
            total = _weighted(some, weights[added])
            self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._weight += int(weights[added].sum())
        self._updates += len(added)
        return errors

    def total(self, schema: ModelSchema) -> PartialSum:
        """The sum in the shapes of `schema`."""
        if not self._updates:
            return PartialSum({}, 0, 0)
        integers: Tensors = {spec.name: self._sums[spec.name].reshape(spec.shape) for spec in schema.tensors}
        return PartialSum(integers, self._weight, self._updates)


def _weighted(rows: NDArray[Any], weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows as integers, times their weights, added up."""
    whole = np.rint(rows.astype(np.float64) * 2.0**FRACTION_BITS)
    if np.abs(whole).max(initial=0) * float(weights.sum()) < EXACT:
        return np.asarray(weights.astype(np.float64) @ whole).astype(np.int64)
    return np.asarray(weights @ whole.astype(np.int64))


def units(values: NDArray[Any], kind: TensorKind) -> NDArray[np.int64]:
    """Values of a tensor of this kind as the integers that are added."""
    if kind == "integer":
        return values.astype(np.int64)
    return np.asarray(np.rint(values.astype(np.float64) * 2.0**FRACTION_BITS)).astype(np.int64)


def _integers(values: Tensors, kinds: Mapping[str, TensorKind], share: float, weight: int) -> Tensors:
    for name, each in values.items():
        largest = float(np.max(np.abs(each.astype(np.float64)), initial=0.0))
        error = _overflow(name, largest, weight, share, _fraction_bits(kinds[name]))
        if error is not None:
            raise error
    return {name: units(each, kinds[name]) * weight for name, each in values.items()}


def _overflow(
    name: str, largest: float, weight: int, share: float, bits: int = FRACTION_BITS
) -> PayloadError | None:
    """What is wrong with values up to `largest`, where they could overflow the sum."""
    # Written so that NaN overflows too.
    if weight * (largest * 2.0**bits + 1) <= share:
        return None
    return PayloadError(
        "norm", f"tensor {name!r}: values up to {largest:.3g}, of weight {weight}, overflow the sum"
    )


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
