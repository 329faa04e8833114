"""Aggregation: a streaming mean of updates, weighted by coverage, that does not depend on the order of arrival.

Where devices train parts of the model, each element is divided by the examples of those that trained it (HeteroFL, Diao
et al. 2021, arXiv 2010.01264, eq. 3; weights as in FedAvg, McMahan et al. 2017, alg. 1). The sum is one of integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from slimfleet.compression import ModelSchema, Tensors
from slimfleet.compression.pruning import IndexMap
from slimfleet.compression.schema import TensorSpec
from slimfleet.coordinator.learning.covered_sum import CoveredSum, PartialSum, Scale
from slimfleet.coordinator.receiving.checks import Norms, norm

if TYPE_CHECKING:
    from torch import nn

MOST_EXAMPLES = 2**26
"""Of all updates of a mean: values of up to 256 then fit the sum. Where there may be more, some share a weight of 1."""


class CoverageMean:
    """Add at most `most_updates` updates in any order, then read their mean.

    Holds two int64 arrays a tensor, whatever the fleet.
    """

    def __init__(
        self, schema: ModelSchema, most_updates: int, model: Tensors | None = None, most_examples: int = 1
    ) -> None:
        """Begin a mean of updates of `model`, each of at most `most_examples`, as far as is known. Where the model is
        NaN or infinite, an update other than 0 sets a value, so that the mean is over the devices that do."""
        self._sum = CoveredSum(schema, most_updates, model)
        lot = max(ceil(most_updates * most_examples / MOST_EXAMPLES), 1)
        self.scale = Scale(share=self._sum.share, lot=lot)
        """How updates become integers."""

    @property
    def updates(self) -> int:
        """Number of those taken."""
        return self._sum.updates

    def add(self, update: Tensors, index_map: IndexMap, examples: int) -> None:
        """Add one device's `update` (shrunk shapes, dtypes of the schema) at `index_map`, weighted by its `examples`.

        Raises PayloadError("norm") as `CoveredSum` does; nothing is added then.
        """
        self._sum.add(update, index_map, self.scale.weight(examples))

    def add_sum(self, part: PartialSum, index_map: IndexMap) -> None:
        """Add updates that have been added up elsewhere under the `scale` of this mean."""
        self._sum.add_sum(part, index_map)

    def mean(self, absent_weight: float = 0.0) -> Tensors:
        """The mean update in full shapes, float64; zero where no device trained the element.

        `absent_weight`, 0..1, weighs a device that did not train an element, as one that left it unchanged: 0 is
        HeteroFL's mean over those that trained it, which for rarely trained elements is the mean of a few skewed
        devices; 1 pads with zeros. Of a counter it is the mean change, of a flag the share of examples on devices that
        flipped it.
        """
        sums = self._sum
        return {
            name: sums.divided(name, total, sums.weight[name], absent_weight)
            for name, total in sums.total.items()
        }

    def covered(self) -> float:
        """Share of the elements that at least one device trained, 0..1."""
        return self._sum.covered()


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
