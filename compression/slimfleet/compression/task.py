"""Task seam: a model, its data and its loss, as one object that every part may hold.

The coordinator gets a task as an object or as a `module:object` string read at the edge; it never imports `client`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Examples:
    """One device's data. `inputs` and `targets` share their first dimension, the number of examples."""

    inputs: Tensor | tuple[Tensor, ...]
    """One tensor, or a tuple for a model that takes several: it is called as `model(*arguments)`."""
    targets: Tensor

    def __len__(self) -> int:
        return int(self.targets.shape[0])

    @property
    def arguments(self) -> tuple[Tensor, ...]:
        """The inputs as a tuple, in the order in which the model takes them."""
        return self.inputs if isinstance(self.inputs, tuple) else (self.inputs,)

    def take(self, index: slice | Tensor) -> Examples:
        """The examples that `index` names."""
        inputs = tuple(tensor[index] for tensor in self.arguments)
        return Examples(inputs if isinstance(self.inputs, tuple) else inputs[0], self.targets[index])


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Result of a model on held-out data."""

    loss: float
    """Mean over the examples."""
    accuracy: float | None = None
    """A score from 0 to 1, higher is better: the share of right answers, or what the task has in its place. None for
    a task without one, such as a regression: its runs are judged by their loss."""


class Task(Protocol):
    """A model, its data and its loss.

    A task may also have:

    - `example_targets() -> Tensor`, the targets of a batch of one, which stand for those of `load` wherever a model is
      tried or measured without data. Without it, zeros of a shape and dtype that `loss` takes are found
      (`slimfleet.compression.example_targets`).
    - `validation() -> Examples`, examples that no partition holds and that are no test data. A model is judged by them
      while it is made small. Without it, a tenth of the training examples is set aside
      (`slimfleet.compression.validation_split`).
    - `score(outputs, targets) -> float`, how good the outputs of a batch are, from 0 to 1, higher is better. Without
      it, a model that gives logits [n, classes] for integer targets [n] has accuracy, every other its loss alone.
    - `evaluate(model) -> Evaluation`, loss, and accuracy where the task has one, on test data that the coordinator has.
      Without it, a federation is judged by what its devices hold out (`evaluation.on_devices`), or not at all.
    """

    @property
    def name(self) -> str:
        """Short name, for reports."""
        ...

    @property
    def partitions(self) -> int:
        """Number of devices that the data are split over; `load` takes 0 .. partitions - 1."""
        ...

    def build_model(self) -> nn.Module:
        """A freshly initialised full-width model; the caller seeds torch."""
        ...

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Inputs of a batch of one, as `model(*inputs)` takes them."""
        ...

    def load(self, partition: int) -> Examples:
        """The local examples of one device."""
        ...

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """Mean loss of a batch, a 0-d tensor; `outputs` are what the model returned."""
        ...


def central_evaluation(task: Task) -> Callable[[nn.Module], Evaluation] | None:
    """The task's own `evaluate`, on central test data; None where it has none."""
    found: Callable[[nn.Module], Evaluation] | None = getattr(task, "evaluate", None)
    return found
