"""Classifier task: one label an example; what the built-in tasks on packaged data have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from slimfleet.client.tasks.partition import Index
from slimfleet.compression.task import Evaluation, Examples
from slimfleet.compression.validation_split import evaluate_on


@dataclass(frozen=True, slots=True)
class Data:
    """What a classifier learns from."""

    training: Examples
    parts: list[Index]
    """Numbers of the training examples of each partition."""
    test: Examples
    validation: Examples | None = None
    """Examples beside the training ones; None where any of those will do."""


@dataclass(frozen=True)
class Classifier:
    """A task of classification: inputs of any kind, one class number an example, cross-entropy.

    `build` makes the model and `read` the data, when they are first used; both are pickled with the task (a function of
    a module, or a `functools.partial` of one), the data are not.
    """

    name: str
    partitions: int
    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Tensor, ...]]
    """Inputs of a batch of one."""
    read: Callable[[], Data]

    def __reduce__(self) -> tuple[type[Classifier], tuple[Any, ...]]:
        """Pickle how to get the data, not the data: every process loads its own."""
        return type(self), tuple(getattr(self, field.name) for field in fields(self))

    def build_model(self) -> nn.Module:
        """The model that the option `model` names."""
        return self.build()

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Inputs of a batch of one."""
        return self.inputs()

    def load(self, partition: int) -> Examples:
        """The training examples of one device; targets are int64 [n]."""
        return self._data.training.take(torch.from_numpy(self._data.parts[partition]))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of logits [n, classes]."""
        return functional.cross_entropy(outputs, targets)

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Loss and accuracy on the test examples."""
        return evaluate_on(self, model, self._data.test)

    @property
    def validation(self) -> Callable[[], Examples] | None:
        """Gives the examples set aside for validation; None where any tenth of the training examples will do."""
        held_out = self._data.validation
        return None if held_out is None else lambda: held_out

    @cached_property
    def _data(self) -> Data:
        return self.read()


def tensors(array: NDArray[Any]) -> Tensor:
    """An array as a tensor of its own memory."""
    return torch.from_numpy(np.ascontiguousarray(array))


def normalisation(rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each column of [n, columns], to subtract and to divide by."""
    mean, deviation = rows.mean(0, dtype=np.float64), rows.std(0, dtype=np.float64)
    return mean.astype(np.float32), deviation.astype(np.float32)
