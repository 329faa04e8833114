"""Central task: a task with all of its training data in one place, as the model toolbox uses it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from slimfleet.compression.checked_task import label_of
from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.training.teachers import Teachers
from slimfleet.compression.task import Evaluation, Examples, Task, central_evaluation
from slimfleet.compression.validation_split import evaluate_on, training_and_validation

__all__ = ["CentralTask", "Progress", "central_task", "silent"]

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many parts of it are done, and of how many."""


def silent(what: str, done: int, of: int) -> None:
    """No progress display."""


@dataclass(frozen=True, slots=True)
class CentralTask:
    """A task, its training and its validation data."""

    task: Task
    training: Examples
    validation: Examples
    """Held out from the training data: what is chosen, is chosen on these. Test data only report."""
    seed: int = 0
    teachers: Teachers = field(default_factory=Teachers)
    """Models that take the same inputs, for training with soft labels."""
    progress: Progress = silent

    @property
    def example_inputs(self) -> tuple[Tensor, ...]:
        """Inputs of a batch of one."""
        return self.task.example_inputs()

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """The task's mean loss of a batch, 0-d."""
        return self.task.loss(outputs, targets)

    def validated(self, model: nn.Module) -> Evaluation:
        """Loss and accuracy on the validation data."""
        return evaluate_on(self.task, model, self.validation)

    def tested(self, model: nn.Module) -> Evaluation:
        """Loss and accuracy on the task's own held-out data."""
        return _judge(self.task)(model)


def central_task(task: Task, seed: int = 0, progress: Progress = silent) -> CentralTask:
    """Read all data of `task`. Raises BadInput where they are too few to hold some out, or there are no test data."""
    _judge(task)
    training, validation = training_and_validation(task, seed)
    return CentralTask(task, training, validation, seed, progress=progress)


def _judge(task: Task) -> Callable[[nn.Module], Evaluation]:
    judge = central_evaluation(task)
    if judge is None:
        raise BadInput(
            f"task {label_of(task)!r} has no test data: give it evaluate(model) -> Evaluation, by which the small "
            "model is judged at the end"
        )
    return judge
