"""Held-out examples: the share of its own data that a device never trains on, and what a model makes of them.

Counts are exact integers. Examples are evaluated one at a time, so that a result depends on no batch: devices that
evaluate their shares and add up get, to the last digit, what one machine of their kind gets from all shares together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from slimfleet.compression.checked_task import blamed, label_of
from slimfleet.compression.modes import evaluating
from slimfleet.compression.task import Examples, Task
from slimfleet.compression.types import LARGEST_LOSS, MOST_CLASSES, UNIT, Evaluated
from slimfleet.compression.validation_split import are_logits

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["LocalData", "divided", "evaluated", "pooled"]

FEWEST = 3
"""A device with fewer examples trains on all of them."""

_STREAM = 0x4E1D
"""Keeps this draw apart from others of the same seed."""


@dataclass(frozen=True, slots=True)
class LocalData:
    """One device's examples."""

    train: Examples
    held_out: Examples | None = None


def divided(examples: Examples, share: float, seed: int, partition: int) -> LocalData:
    """Set a share of the examples aside, at least one of three or more; the same ones for the same seed and partition.

    With a share of 0 none is held out.
    """
    import torch

    count = len(examples)
    if share <= 0 or count < FEWEST:
        return LocalData(examples)
    aside = min(max(round(share * count), 1), count - 2)
    order = np.random.default_rng([seed, partition, _STREAM]).permutation(count)
    held_out, train = (torch.from_numpy(np.sort(part)) for part in (order[:aside], order[aside:]))
    return LocalData(examples.take(train), examples.take(held_out))


def evaluated(
    task: Task, model: nn.Module, examples: Examples, goes_on: Callable[[int], bool] = lambda done: True
) -> Evaluated | None:
    """Counts and sums of `model` in eval mode over the examples, in their order, for as long as `goes_on(done)`.

    None where not one was evaluated. The model and torch's generator stay as they are. Raises BadTask for what the
    model or the task raises.
    """
    import torch

    single = []
    with evaluating(model), torch.inference_mode(), torch.random.fork_rng(devices=[]):
        for place in range(len(examples)):
            if not goes_on(place):
                break
            one = examples.take(slice(place, place + 1))
            with blamed(label_of(task), "the model on an example held out"):
                outputs = model(*one.arguments)
                loss = float(task.loss(outputs, one.targets))
                single.append(_counted(task, outputs, one.targets, loss))
    return pooled(single)


def pooled(parts: Iterable[Evaluated]) -> Evaluated | None:
    """The sum of evaluations, exact and in any order; None where there are none."""
    known = list(parts)
    if not known:
        return None
    return Evaluated(
        examples=sum(part.examples for part in known),
        loss_sum=sum(part.loss_sum for part in known),
        correct=_sum([part.correct for part in known]),
        score_sum=_sum([part.score_sum for part in known]),
        by_class=_by_class([part.by_class for part in known]),
    )


def _counted(task: Task, outputs: Any, targets: Tensor, loss: float) -> Evaluated:
    """One example. A class number beyond those of the logits counts as wrong, and under no class."""
    loss_sum = _fixed(loss)
    own = getattr(task, "score", None)
    if own is not None:
        return Evaluated(
            examples=1, loss_sum=loss_sum, score_sum=min(max(_fixed(float(own(outputs, targets))), 0), UNIT)
        )
    if not are_logits(outputs, targets):
        return Evaluated(examples=1, loss_sum=loss_sum)
    wanted, classes = int(targets[0]), outputs.shape[1]
    correct = int(int(outputs[0].argmax()) == wanted)
    by_class = None
    if classes <= MOST_CLASSES:
        by_class = tuple((1, correct) if number == wanted else (0, 0) for number in range(classes))
    return Evaluated(examples=1, loss_sum=loss_sum, correct=correct, by_class=by_class)


def _fixed(value: float) -> int:
    """A number in fixed point; one that is not finite, or too large, is the largest."""
    if not isfinite(value):
        return LARGEST_LOSS
    return min(max(round(value * UNIT), -LARGEST_LOSS), LARGEST_LOSS)


def _sum(counts: Sequence[int | None]) -> int | None:
    """The sum; None where one is not known."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _by_class(
    parts: Sequence[tuple[tuple[int, int], ...] | None],
) -> tuple[tuple[int, int], ...] | None:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    columns = zip_longest(*known, fillvalue=(0, 0))
    return tuple((sum(n for n, _ in column), sum(right for _, right in column)) for column in columns)
