"""Forms of a model in which several devices are trained at once, and whether one does what the model does."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from slimfleet.client.cohort.layers import Own
from slimfleet.client.cohort.stacked import Stacked
from slimfleet.client.cohort.vmapped import Vmapped
from slimfleet.compression import Examples, Task, Tensors
from slimfleet.compression.checked_task import CheckedTask
from slimfleet.compression.tensors import load_tensors, tensors_of

__all__ = ["CPU", "Form", "rehearsed", "state_of", "trained_names"]

CPU = torch.device("cpu")

AGREES = 1e-4
"""How far losses, gradients and running statistics may be from the model's own, as a share of the largest value."""

EXAMPLES, DEVICES = 8, 2
"""Of a rehearsal."""


class Form(Protocol):
    """Several devices' copies of a model as one."""

    def losses(self, state: Own, inputs: Sequence[Tensor], targets: Tensor) -> Tensor:
        """Losses [devices] of inputs and targets [devices, batch, ...]; running statistics in `state` are updated."""
        ...


def state_of(tensors: Mapping[str, Any], devices: int, where: torch.device) -> dict[str, Tensor]:
    """The `tensors` of one model, once for each of so many devices; weights of convolutions lie channels-last, as the
    pictures do that they are applied to."""
    return {name: _copies(torch.from_numpy(array).to(where), devices) for name, array in tensors.items()}


def _copies(tensor: Tensor, devices: int) -> Tensor:
    each = tensor.unsqueeze(0).expand(devices, *tensor.shape)
    if tensor.dim() != 4:
        return each.clone()
    return each.permute(0, 1, 3, 4, 2).clone(memory_format=torch.contiguous_format).permute(0, 1, 4, 2, 3)


def trained_names(model: nn.Module) -> list[str]:
    """The parameters that training moves."""
    return [name for name, each in model.named_parameters() if each.requires_grad]


def rehearsed(
    task: Task, model: nn.Module, examples: Examples, *, vmaps: bool, where: torch.device = CPU
) -> Form | None:
    """A form of `model` that does `where` it is used what the model does in training, with a few examples: stacked, or
    with `vmaps` vmapped.

    None where there is none. The model stays as it is.
    """
    few = examples.take(torch.arange(EXAMPLES) % len(examples))
    # The checks of a CheckedTask ask for values of one device, and have passed before.
    loss = (task.wrapped if isinstance(task, CheckedTask) else task).loss
    start, training = tensors_of(model), model.training
    if not _is_plain(model, start):
        return None
    model.train()
    try:
        form: Form | None = Stacked.of(model, loss, few.arguments)
        if form is None and vmaps:
            form = Vmapped(model, loss)
        if form is None or not _agrees(form, where, Vmapped(model, loss), start, few):
            return None
        return form
    finally:
        load_tensors(model, start)
        model.train(training)


def _is_plain(model: nn.Module, tensors: Tensors) -> bool:
    """Whether `tensors` are the model's as they are, float32 weights among them, and no parameter has two names."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    dtypes = {name: torch.from_numpy(array).dtype for name, array in tensors.items()}
    return (
        len({id(each) for each in parameters.values()}) == len(parameters)
        and all(each.dtype == torch.float32 for each in parameters.values() if each.requires_grad)
        and all(each.dtype == dtypes[name] for name, each in model.state_dict().items() if name in dtypes)
    )


def _agrees(form: Form, where: torch.device, model: Vmapped, start: Tensors, few: Examples) -> bool:
    """Whether losses, gradients and running statistics of a step agree, for each of several devices.

    In float64: what differs then is no rounding, which deep networks with batch normalisation make much of.
    """
    own = {name: _exact(torch.from_numpy(array)).clone() for name, array in start.items()}
    state = {name: torch.stack([each] * DEVICES).to(where) for name, each in own.items()}
    inputs, targets = tuple(map(_exact, few.arguments)), _exact(few.targets)
    *many, answers = (torch.stack([each] * DEVICES).to(where) for each in (*inputs, targets))
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # Of an operation without a batching rule, which torch would do for one device after the other.
            warnings.filterwarnings("error", message="There is a performance drop")
            names = trained_names(model.model)
            loss, expected = _step(lambda: model.loss_of_one(own, inputs, targets), own, names)
            losses, found = _step(lambda: form.losses(state, many, answers), state, names)
    except Exception:  # noqa: BLE001 - a foreign model or loss may not be one for several devices; the loop takes it
        return False
    largest = max(float(each.abs().max()) for each in expected.values())
    return (
        _near(losses, loss)
        and all(_near(found[name], its, largest / 100) for name, its in expected.items())
        and all(_near(state[name], own[name]) for name in own.keys() - names)
    )


def _step(
    losses: Callable[[], Tensor], state: Mapping[str, Tensor], names: Sequence[str]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses and the gradients of `names`."""
    leaves = [state[name].requires_grad_() for name in names]
    found = losses()
    gradients = torch.autograd.grad(found.sum(), leaves)
    return found.detach(), dict(zip(names, gradients, strict=True))


def _exact(tensor: Tensor) -> Tensor:
    """Floats as float64."""
    return tensor.double() if tensor.is_floating_point() else tensor


def _near(found: Tensor, expected: Tensor, least: float = 0.0) -> bool:
    """Whether the values of each device are those of the model, which may be as large as `least`."""
    if not expected.numel():
        return True
    its = expected.double()
    return bool((found.cpu().double() - its).abs().max() <= AGREES * max(float(its.abs().max()), least))
