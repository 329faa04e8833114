"""Aggregators: how a round's updates become one, by the name that `server.aggregation` gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

from slimfleet.compression import ModelSchema, Tensors
from slimfleet.compression.pruning import IndexMap
from slimfleet.coordinator.learning.aggregate import CoverageMean
from slimfleet.coordinator.learning.trimmed import TrimmedMean
from slimfleet.coordinator.settings import ServerSettings


class Aggregator(Protocol):
    """Takes the updates of a round one by one, in any order, and gives the one that moves the global model."""

    @property
    def updates(self) -> int:
        """Number of those taken."""
        ...

    def add(self, update: Tensors, index_map: IndexMap, examples: int) -> None:
        """Take one device's `update` (shrunk shapes, dtypes of the schema), at `index_map` in the full model.

        `examples` is what it weighs at most. Raises PayloadError where the update cannot be taken; nothing is then.
        """
        ...

    def mean(self, absent_weight: float = 0.0) -> Tensors:
        """The update of the global model (full shapes, float64); zero where no device trained the element.

        `absent_weight`, 0..1, weighs a device that did not train an element, as one that left it unchanged.
        """
        ...

    def covered(self) -> float:
        """Share of the elements that at least one device trained, 0..1."""
        ...


MakeAggregator = Callable[[ModelSchema, int, Tensors, int, ServerSettings], Aggregator]
"""Called with the schema of updates, the most updates, the global model and the most examples of an update."""


def _mean(
    schema: ModelSchema, most_updates: int, model: Tensors, most_examples: int, settings: ServerSettings
) -> Aggregator:
    return CoverageMean(schema, most_updates, model, most_examples)


def _trimmed(
    schema: ModelSchema, most_updates: int, model: Tensors, most_examples: int, settings: ServerSettings
) -> Aggregator:
    return TrimmedMean(schema, most_updates, model, settings.trim)


def _median(
    schema: ModelSchema, most_updates: int, model: Tensors, most_examples: int, settings: ServerSettings
) -> Aggregator:
    return TrimmedMean(schema, most_updates, model)


AGGREGATORS: Mapping[str, MakeAggregator] = MappingProxyType(
    {"mean": _mean, "trimmed": _trimmed, "median": _median}
)
"""Aggregators by the name that `server.aggregation` gives them. A new one is one file and one line here."""
