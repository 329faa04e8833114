"""Aggregation: a streaming mean of updates, weighted by coverage, that does not depend on the order of arrival.

Every value is added as an integer: a float as a multiple of 2**-28, a counter or flag as it is. Integer sums are exact
and associative, so any order gives the same bytes; they stream, so memory does not grow with the number of devices; and
they are what secure aggregation works on. Where devices train parts of the model, each element is divided by the
examples of those that trained it (HeteroFL, Diao et al. 2021, arXiv 2010.01264, eq. 3; weights as in FedAvg, McMahan
et al. 2017, alg. 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression import ModelSchema, PayloadError, Tensors
from slimfleet.compression.difference import unset
from slimfleet.compression.pruning import IndexMap
from slimfleet.compression.schema import TensorKind, TensorSpec
from slimfleet.coordinator.receiving.checks import Norms, norm

if TYPE_CHECKING:
    from torch import nn

FRACTION_BITS = 28
"""Resolution of the sum of floats: 2**-28, some 16 times finer than float32 resolves a value near 1."""

HEADROOM = 2.0**62
"""Largest sum: half of int64's range, so that rounding cannot decide an overflow."""

MOST_EXAMPLES = 2**26
"""Of all updates of a mean: values of up to 256 then fit the sum. Where there may be more, some share a weight of 1."""


class CoverageMean:
    """Add at most `most_updates` updates in any order, then read their mean.

    Holds two int64 arrays a tensor, whatever the fleet. Each update has an equal share of the sum's range, so that
    whether one is refused does not depend on the others.
    """

    def __init__(
        self, schema: ModelSchema, most_updates: int, model: Tensors | None = None, most_examples: int = 1
    ) -> None:
        """Begin a mean of updates of `model`, each of at most `most_examples`, as far as is known. Where the model is
        NaN or infinite, an update other than 0 sets a value, so that the mean is over the devices that do."""
        self._kinds = {t.name: t.kind for t in schema.tensors}
        self._sum = {t.name: np.zeros(t.shape, np.int64) for t in schema.tensors}
        self._weight = {t.name: np.zeros(t.shape, np.int64) for t in schema.tensors}
        self._unset = unset_buffers(schema, model)
        self._examples = 0
        self.scale = Scale.of(most_updates, most_examples)
        self._most = most_updates
        self.updates = 0

    def add(self, update: Tensors, index_map: IndexMap, examples: int) -> None:
        """Add one device's `update` (shrunk shapes, dtypes of the schema) at `index_map`, weighted by its `examples`.

        Raises PayloadError("norm") where its values are so large that the sum could overflow; nothing is added then.
        Statistics of data on a large scale are cut instead: they move as far as the sum has room, round by round.
        """
        if self.updates == self._most:
            raise ValueError(f"this mean was made for {self._most} updates, here is one more")
        weight = self.scale.weight(examples)
        update = {name: self._cut(name, values, weight) for name, values in update.items()}
        index_map.add_into(self._sum, self.scale.integers(update, self._kinds, examples))
        index_map.add_scalar(self._weight, weight)
        for name, where in self._unset.items():
            place = index_map.selectors[name]
            self._weight[name][place] -= weight * (where[place] & (update[name] == 0))
        self._examples += weight
        self.updates += 1

    def add_sum(self, part: PartialSum, index_map: IndexMap) -> None:
        """Add the updates of several devices that have been added up elsewhere, under the scale of this mean. Their
        schema has weights alone, and their model no place without a value."""
        if self.updates + part.updates > self._most:
            raise ValueError(f"this mean was made for {self._most} updates, here are {part.updates} more")
        index_map.add_into(self._sum, part.integers)
        index_map.add_scalar(self._weight, part.weight)
        self._examples += part.weight
        self.updates += part.updates

    def mean(self, absent_weight: float = 0.0) -> Tensors:
        """The mean update in full shapes, float64; zero where no device trained the element.

        `absent_weight`, 0..1, weighs a device that did not train an element, as one that left it unchanged: 0 is
        HeteroFL's mean over those that trained it, which for rarely trained elements is the mean of a few skewed
        devices; 1 pads with zeros. Of a counter it is the mean change, of a flag the share of examples on devices that
        flipped it.
        """
        mean: Tensors = {}
        for name, total in self._sum.items():
            weight = self._weight[name]
            absent = absent_weight * (self._examples - weight)
            counted = weight + (np.where(self._unset[name], 0, absent) if name in self._unset else absent)
            mean[name] = np.asarray(
                total / (np.maximum(counted, 1) * 2.0 ** fraction_bits(self._kinds[name]))
            )
        return mean

    def covered(self) -> float:
        """Share of the elements that at least one device trained, 0..1."""
        return share_covered(self._weight)

    def _cut(self, name: str, values: NDArray[Any], weight: int) -> NDArray[Any]:
        if self._kinds[name] != "buffer":
            return values
        room = 0.999 * self.scale.share / weight / 2.0**FRACTION_BITS
        return np.clip(values.astype(np.float64), -room, room)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How the updates of a mean become integers: the same wherever they are added up."""

    share: float
    """Of the sum's range, that of one update."""
    lot: int
    """Examples that have a weight of 1."""

    @classmethod
    def of(cls, most_updates: int, most_examples: int) -> Scale:
        """For so many updates, each of at most so many examples, as far as is known."""
        lot = max(ceil(most_updates * most_examples / MOST_EXAMPLES), 1)
        return cls(share=HEADROOM / max(most_updates, 1), lot=lot)

    def weight(self, examples: int) -> int:
        """The weight of an update from so many examples."""
        return max(examples // self.lot, 1)

    def integers(self, update: Tensors, kinds: Mapping[str, TensorKind], examples: int) -> Tensors:
        """The update times its weight as int64. Raises PayloadError("norm") where that could overflow the sum."""
        weight = self.weight(examples)
        for name, values in update.items():
            bits = fraction_bits(kinds[name])
            if (largest := overflowing(values, bits, self.share, weight)) is not None:
                raise PayloadError(
                    "norm",
                    f"tensor {name!r}: values up to {largest:.3g} from {examples} examples overflow the sum",
                )
        return {name: units(values, kinds[name]) * weight for name, values in update.items()}


@dataclass(frozen=True, slots=True)
class PartialSum:
    """The updates of some devices of one width, added up as integers: exact, in any order and in any parts."""

    integers: Tensors
    """int64, in the shapes of the updates."""
    weight: int
    updates: int


def unset_buffers(schema: ModelSchema, model: Tensors | None) -> Mapping[str, NDArray[np.bool_]]:
    """Where buffers of `model` are NaN or infinite, full shapes; those alone that are so somewhere."""
    if not model:
        return {}
    return {t.name: where for t in schema.of_kind("buffer") if (where := unset(model[t.name])).any()}


def overflowing(values: NDArray[Any], bits: int, share: float, weight: int = 1) -> float | None:
    """The largest magnitude of `values`, where integers of so many binary `bits` times `weight` take more than `share`
    of the sum; None where they do not."""
    largest = float(np.max(np.abs(values.astype(np.float64)), initial=0.0))
    # Written so that NaN overflows too.
    return None if weight * (largest * 2.0**bits + 1) <= share else largest


def share_covered(counts: Tensors) -> float:
    """Share of the elements whose count, or weight, is not zero; 0..1."""
    trained = sum(int(np.count_nonzero(count)) for count in counts.values())
    return trained / max(sum(count.size for count in counts.values()), 1)


def fraction_bits(kind: TensorKind) -> int:
    """Binary places of the integers that values of a tensor of this kind are added as."""
    return 0 if kind == "integer" else FRACTION_BITS


def units(values: NDArray[Any], kind: TensorKind) -> NDArray[np.int64]:
    """Values of a tensor of this kind as the integers that are added."""
    if kind == "integer":
        return _signed(values).astype(np.int64)
    return np.asarray(np.rint(values.astype(np.float64) * 2.0**FRACTION_BITS)).astype(np.int64)


def tied_tensors(model: nn.Module) -> list[tuple[str, ...]]:
    """Names of one and the same float tensor of a model, for each that has several."""
    names: dict[int, list[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.is_floating_point():
            names.setdefault(id(tensor), []).append(name)
    return [tuple(same) for same in names.values() if len(same) > 1]


def tied(mean: Tensors, names: Sequence[tuple[str, ...]]) -> Tensors:
    """The mean update, in which tensors that are one move as one.

    On a device they are, but each travels, and is quantised, by itself.
    """
    return mean | {
        name: np.asarray(np.mean([mean[each] for each in same], axis=0)) for same in names for name in same
    }


def shortened(update: Tensors, schema: ModelSchema, longest: Norms) -> Tensors:
    """The update, scaled down where it is longer than `longest`; weights and statistics apart."""

    def scaled(specs: Sequence[TensorSpec], limit: float) -> Tensors:
        found = norm(update, specs)
        if found <= limit:
            return {}
        return {
            spec.name: np.asarray(update[spec.name] * (limit / found), update[spec.name].dtype)
            for spec in specs
        }

    return (
        update
        | scaled(schema.weights, longest.weights)
        | scaled(schema.of_kind("buffer"), longest.statistics)
    )


def scaled(update: Tensors, schema: ModelSchema, factor: float) -> Tensors:
    """The update times `factor`; its counters and flags, which tell what happened, stay as they are."""
    if factor == 1.0:
        return update
    return update | {
        spec.name: np.asarray(update[spec.name] * factor, update[spec.name].dtype)
        for spec in schema.of_kind("weight", "buffer")
    }


def _signed(change: NDArray[Any]) -> NDArray[Any]:
    """The change of an unsigned counter wraps around: 255 in a byte is one less."""
    return change.view(f"i{change.itemsize}") if change.dtype.kind == "u" else change
