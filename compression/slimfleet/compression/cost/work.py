"""Work of training: what one example of a model takes, measured on the model itself.

FLOPs do not scale as width squared (first and last layers scale linearly) and saved activations follow
neither, so both are counted on the shrunk model rather than assumed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from slimfleet.compression.architecture import key_of
from slimfleet.compression.checked_task import CheckedTask, blamed, label_of
from slimfleet.compression.examined import Examined
from slimfleet.compression.example_targets import fitting_targets

if TYPE_CHECKING:
    from torch import Tensor, UntypedStorage, nn

    from slimfleet.compression.task import Task


@dataclass(frozen=True, slots=True)
class Work:
    """The work of training one model, per example where it grows with the batch."""

    flops_per_example: float
    """Forward and backward pass; a multiply-add counts as two."""
    activation_bytes_per_example: float
    """Tensors that autograd keeps for the backward pass, each storage counted once, parameters left out. A checkpointed
    segment keeps its input alone; what it computes again in the backward pass comes on top and is not in here."""
    parameter_bytes: int
    """Trainable parameters."""
    parameters: int
    """Number of trainable parameters."""

    @property
    def forward_flops_per_example(self) -> float:
        """Of a forward pass alone: the gradients of activations and of weights cost as much each (measured: a step is
        2.95 to 3.00 forward passes)."""
        return self.flops_per_example / 3


def work_of(task: Task, model: nn.Module, examined: Examined | None = None) -> Work:
    """The work of training `model`, the model of `task` at any width, on inputs and with the loss of the task.

    With `examined` it is looked up there, and measured and kept where it is new.
    """
    if examined is None:
        return _measured(task, model)
    key = key_of("work", task, model)
    known = examined.get(key)
    if known is not None:
        return Work(**json.loads(known[1]["work"]))
    work = _measured(task, model)
    examined.put(key, ({}, {"work": json.dumps(asdict(work))}))
    return work


def _measured(task: Task, model: nn.Module) -> Work:
    with blamed(label_of(task), "a step on example_inputs"):
        targets = task.example_targets() if isinstance(task, CheckedTask) else None
        return measure_work(model, task.example_inputs(), task.loss, targets)


def measure_work(
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    loss: Callable[[Any, Tensor], Tensor],
    targets: Tensor | None = None,
) -> Work:
    """Count the work of training `model` by running it forward and backward on batches of 2 and of 8.

    The difference of two batches is the slope per example: what does not grow with the batch (weights that a
    layer saves for its backward pass) drops out, and batch normalisation never sees a batch of one.

    `example_inputs` are the inputs of a batch of one, batch dimension first. `loss(outputs, targets)` returns
    the 0-d mean loss. `targets` are those of a batch of one; left out, zeros that `loss` takes stand for them.
    Neither the model nor torch's random state changes. What counts as a FLOP is in
    `slimfleet.compression.cost.flops`.
    """
    import torch

    copy = deepcopy(model).train()
    small, large = 2, 8
    with torch.random.fork_rng(devices=[]):
        if targets is None:
            targets = fitting_targets(loss, copy(*(_repeat(x, small) for x in example_inputs)))
        flops_small, bytes_small = _pass(copy, example_inputs, loss, targets, small)
        flops_large, bytes_large = _pass(copy, example_inputs, loss, targets, large)
    trained = [p for p in copy.parameters() if p.requires_grad]
    return Work(
        flops_per_example=(flops_large - flops_small) / (large - small),
        activation_bytes_per_example=(bytes_large - bytes_small) / (large - small),
        parameter_bytes=sum(p.numel() * p.element_size() for p in trained),
        parameters=sum(p.numel() for p in trained),
    )


def _pass(
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    loss: Callable[[Any, Tensor], Tensor],
    targets: Tensor,
    batch: int,
) -> tuple[int, int]:
    """FLOPs and bytes kept for the backward pass, of one training step on `batch` copies of the example."""
    import torch

    from slimfleet.compression.cost.flops import FlopCounter

    inputs, wanted = tuple(_repeat(x, batch) for x in example_inputs), _repeat(targets, batch)
    # Views of one storage (a ReLU's output kept by the next layer too) are one piece of memory.
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage  # held, so that no later storage takes its address
        return tensor

    with FlopCounter() as counter:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            outputs = model(*inputs)
            value = loss(outputs, wanted)
        kept_bytes = sum(each.nbytes() for address, each in kept.items() if address not in parameters)
        kept.clear()  # the backward pass frees them as it goes
        value.backward()  # type: ignore[no-untyped-call]
    counter.name_uncounted()
    return counter.flops, kept_bytes


def _repeat(tensor: Tensor, batch: int) -> Tensor:
    return tensor.repeat(batch, *[1] * (tensor.dim() - 1))
