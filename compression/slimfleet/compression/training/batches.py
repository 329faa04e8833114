"""Batches: shuffled, epoch after epoch, and what of them a model can train on.

The last batch of an epoch may be smaller, as torch's `DataLoader` has it. Some models cannot train on a single example:
batch normalisation, for one, has no variance of a single value. With such a model a last batch of one example is left
out, and the epoch after it begins. Where every batch has one example, because the plan or the device has no more, batch
normalisation keeps to its running statistics, as in evaluation, and they stay as they are. The number of steps is the
planned one in each case.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from slimfleet.compression.errors import BadInput, BudgetExceeded
from slimfleet.compression.task import Examples, Task


def prepared(model: nn.Module, task: Task, examples: Examples, batch_size: int) -> bool:
    """Put `model` into training mode for batches of these examples; whether a last batch of one of them is of use.

    Raises BudgetExceeded("examples") where all batches are of one example and the model cannot train on it.
    """
    model.train()
    if not has_single(len(examples), batch_size) or _trains_on_one(model, task, examples):
        return True
    alone = min(batch_size, len(examples)) == 1
    if alone:
        for module in model.modules():
            if isinstance(module, _NormBase):
                module.eval()
        if not _trains_on_one(model, task, examples):
            raise BudgetExceeded(
                "examples",
                f"the model cannot train on one example at a time, and a batch has no more "
                f"({len(examples)} examples, batch size {batch_size}): give this device two, or a larger batch size",
            )
    return alone


def has_single(count: int, batch_size: int) -> bool:
    """Whether one of the batches of so many examples has a single one."""
    return min(batch_size, count) == 1 or count % batch_size == 1


def _trains_on_one(model: nn.Module, task: Task, examples: Examples) -> bool:
    """Whether a single example has a loss in the mode that the model is in. The model stays as it is."""
    before = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            one = examples.take(slice(1))
            return isfinite(float(task.loss(model(*one.arguments), one.targets)))
    except Exception:  # noqa: BLE001 - whatever it raises, and a fault that has other causes shows in the first step
        return False
    finally:
        for module, name, buffer, value in before:
            buffer.data = value  # its shape too
            setattr(module, name, buffer)


def shuffled(
    examples: Examples, batch_size: int, rng: np.random.Generator, *, single: bool = True
) -> Iterator[Examples]:
    """Mini-batches in an order drawn from `rng`, epoch after epoch, without end; the last of an epoch may be smaller.

    Without `single` one of a single example is left out. Raises BadInput where there are no examples.
    """
    for index in shuffled_places(len(examples), batch_size, rng, single=single):
        yield examples.take(index)


def shuffled_places(
    count: int, batch_size: int, rng: np.random.Generator, *, single: bool = True
) -> Iterator[Tensor]:
    """Which of `count` examples each batch of `shuffled` has, int64 [batch]."""
    if count == 0:
        raise BadInput("this device has no examples to train on: leave it out, or give it data")
    while True:
        order = rng.permutation(count)
        for begin in range(0, count - (not single), batch_size):
            yield torch.from_numpy(order[begin : begin + batch_size])
