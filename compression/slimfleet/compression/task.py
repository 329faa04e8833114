"""Task seam: a model, its data and its loss, as one object that every part may hold.

The coordinator gets a task as an object or as a `module:object` string read at the edge; it never imports `client`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Examples:
    """One device's data. `inputs` and `targets` share their first dimension, the number of examples."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return int(self.targets.shape[0])


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Result of a model on held-out data: mean loss, and accuracy in 0..1."""

    loss: float
    accuracy: float


class Task(Protocol):
    """A model, its data and its loss."""

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

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of a batch, a 0-d tensor."""
        ...

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Loss and accuracy on held-out data."""
        ...
