"""Validation split: what part of the training data a model is judged by while it is being made small.

A task may hold out validation data itself, with `validation()`. For every other task a tenth of what `load` gives is
set aside here, the same tenth for the same seed. Test data, those behind `Task.evaluate`, are never touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from slimfleet.compression.checked_task import blamed, label_of
from slimfleet.compression.errors import BadInput
from slimfleet.compression.modes import evaluating
from slimfleet.compression.task import Evaluation, Examples, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["all_examples", "are_logits", "evaluate_on", "training_and_validation"]

HELD_OUT = 10
"""One example in so many is set aside."""

EVALUATION_BATCH = 100
"""Keeps the activations of a small CNN inside a core's cache: larger batches are slower on a CPU."""

_STREAM = 0x5A11D
"""Keeps this draw apart from others of the same seed."""


def all_examples(task: Task) -> Examples:
    """The training examples of every partition, in the order of the partitions: the task trained in one place.

    Raises BadInput where the partitions have inputs or targets of different shapes.
    """
    import torch

    parts = [task.load(partition) for partition in range(task.partitions)]
    if len(parts) == 1:
        return parts[0]
    with blamed(label_of(task), "load, of all partitions together"):
        inputs = tuple(
            torch.cat(tensors) for tensors in zip(*(part.arguments for part in parts), strict=True)
        )
        targets = torch.cat([part.targets for part in parts])
    return Examples(inputs if isinstance(parts[0].inputs, tuple) else inputs[0], targets)


def training_and_validation(task: Task, seed: int) -> tuple[Examples, Examples]:
    """What to train on, and what to judge the model by while it is changed; they share no example.

    The task's own `validation()` where it has one. Otherwise one tenth of the training examples of all partitions,
    drawn from `seed`; of class numbers, integer targets [n], one tenth of each class.
    Raises BadInput where there are fewer than ten examples to split.
    """
    import torch

    examples = all_examples(task)
    own = getattr(task, "validation", None)  # None of a CheckedTask around a task without one
    if own is not None:
        return examples, own()
    if len(examples) < HELD_OUT:
        raise BadInput(
            f"task {label_of(task)!r} has {len(examples)} training examples, a tenth to validate on needs at least "
            f"{HELD_OUT}: give it more, or a member validation() -> Examples"
        )
    rng = np.random.default_rng([seed, _STREAM])
    order = rng.permutation(len(examples))
    if _are_classes(examples.targets):
        order = order[np.argsort(examples.targets.numpy()[order], kind="stable")]
    # Every tenth of a list sorted by class is a tenth of each class.
    held_out = np.zeros(len(examples), dtype=bool)
    held_out[order[rng.integers(HELD_OUT) :: HELD_OUT]] = True
    train, validation = (torch.from_numpy(np.flatnonzero(mask)) for mask in (~held_out, held_out))
    return examples.take(train), examples.take(validation)


def evaluate_on(
    task: Task, model: nn.Module, examples: Examples, batch_size: int = EVALUATION_BATCH
) -> Evaluation:
    """Mean loss and score of `model` over `examples`, in eval mode; the model gets its own mode back.

    The score is the task's own, `score(outputs, targets)`, averaged over batches by their size. Without one it is
    accuracy, where the model gives logits [n, classes] for integer targets [n], and None elsewhere.
    """
    import torch

    losses: list[float] = []
    scores: list[float | None] = []
    sizes: list[int] = []
    with evaluating(model), torch.inference_mode():
        for start in range(0, len(examples), batch_size):
            batch = examples.take(slice(start, start + batch_size))
            with blamed(label_of(task), "the model on its data"):
                outputs = model(*batch.arguments)
            losses.append(float(task.loss(outputs, batch.targets)))
            scores.append(_score(task, outputs, batch.targets))
            sizes.append(len(batch))
    known = [score for score in scores if score is not None]
    accuracy = float(np.average(known, weights=sizes)) if len(known) == len(scores) else None
    return Evaluation(float(np.average(losses, weights=sizes)), accuracy)


def _score(task: Task, outputs: Any, targets: Tensor) -> float | None:
    own = getattr(task, "score", None)
    if own is not None:
        return float(own(outputs, targets))
    if not are_logits(outputs, targets):
        return None
    return float((outputs.argmax(dim=1) == targets).float().mean())


def _are_classes(targets: Tensor) -> bool:
    import torch

    return targets.dim() == 1 and not targets.is_floating_point() and targets.dtype != torch.bool


def are_logits(outputs: Any, targets: Tensor) -> bool:
    """Whether these are logits [n, classes] for class numbers [n], which have an accuracy."""
    import torch

    return (
        isinstance(outputs, torch.Tensor)
        and outputs.dim() == 2
        and len(outputs) == len(targets)
        and _are_classes(targets)
    )
