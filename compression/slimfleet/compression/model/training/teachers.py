"""Teachers: models that others learn from, and what they say of the training data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.evaluation.divergence import squared_difference
from slimfleet.compression.pruning.removable import in_a_line
from slimfleet.compression.task import Examples

__all__ = ["Batch", "Teachers"]

MOST_BYTES = 1 << 28
"""Of what a teacher said that is kept: larger outputs are computed each time."""


@dataclass(frozen=True, slots=True)
class Batch(Examples):
    """Some of the training examples."""

    of: Examples
    """All of them."""
    index: Tensor
    """int64 [n]: which these are."""

    @classmethod
    def taken(cls, examples: Examples, index: Tensor) -> Batch:
        """The examples at `index`."""
        some = examples.take(index)
        return cls(some.inputs, some.targets, examples, index)


class Teachers:
    """Models in evaluation mode that take a task's inputs. What they say of an example is computed once."""

    def __init__(self, models: Sequence[nn.Module] = ()) -> None:
        self.models = tuple(models)
        self._said = [_Said(model) for model in self.models]

    def __len__(self) -> int:
        return len(self.models)

    def say(self, batch: Batch) -> list[Any]:
        """What each gives for the inputs of a batch, without gradients."""
        with torch.no_grad():
            return [said.of(batch) for said in self._said]

    def check(self, outputs: Any, example_inputs: tuple[Tensor, ...]) -> None:
        """Raise BadInput where one does not take such inputs, or gives other shapes than a student's `outputs`."""
        for number, model in enumerate(self.models, 1):
            try:
                with torch.no_grad():
                    taught = model(*example_inputs)
            except Exception as error:
                raise BadInput(
                    f"teacher {number}, a {type(model).__name__}, does not take the inputs of the task: "
                    f"{in_a_line(error)}"
                ) from error
            squared_difference(outputs, taught)


class _Said:
    """What one teacher said of the examples that it was shown."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._of: Examples | None = None
        self._kept: Tensor | None = None
        self._known = torch.empty(0, dtype=torch.bool)

    def of(self, batch: Batch) -> Any:
        if batch.of is not self._of:
            self._of, self._kept = batch.of, None
            self._known = torch.zeros(len(batch.of), dtype=torch.bool)
        new = ~self._known[batch.index]
        if new.any():
            said = self._model(*batch.arguments) if new.all() else self._model(*batch.take(new).arguments)
            if not self._fits(said, int(new.sum()), len(batch.of)):
                return said
            if self._kept is None:
                self._kept = said.new_empty(len(batch.of), *said.shape[1:])
            self._kept[batch.index[new]] = said
            self._known[batch.index[new]] = True
        assert self._kept is not None
        return self._kept[batch.index]

    @staticmethod
    def _fits(said: Any, count: int, of: int) -> bool:
        """Whether outputs for so many examples can be kept, one by one, for all."""
        if not isinstance(said, Tensor) or said.dim() == 0 or len(said) != count:
            return False
        return said.nbytes // count * of <= MOST_BYTES
