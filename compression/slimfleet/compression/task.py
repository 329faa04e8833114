"""Task seam: a model, its data and its loss, as one object that every part may hold.

The coordinator gets a task as an object or as a `module:object` string read at the edge; it never imports `client`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from slimfleet.compression.errors import BadInput

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


def resolve(reference: str) -> object:
    """Import `module:object`.

    Raises BadInput when the reference is not of that form or cannot be imported.
    """
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute:
        raise BadInput(
            f"{reference!r} is not of the form module:object (for example my_package.my_task:MyTask)"
        )
    try:
        return cast(object, getattr(importlib.import_module(module_name), attribute))
    except (ImportError, AttributeError) as error:
        raise BadInput(f"cannot load {reference!r}: {error}") from error
