"""Fitting: a new layer learns what the layer that it takes the place of does, before the whole model trains again.

Each is fitted alone, by least squares between its outputs and those of the old layer on training examples (layer-wise
reconstruction, as in FitNets, Romero et al. 2015, arXiv 1412.6550, and He, Zhang and Sun 2017, arXiv 1707.06168).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import cos, pi
from typing import Any

import torch
from torch import Tensor, nn

from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.pruning.nested import map_tensors, tensors_in

__all__ = ["Call", "calls_of", "fitted", "outputs_read"]

BATCH, EXAMPLES, MOST_BYTES = 64, 2048, 2**28
"""Calls are recorded of so many training examples, fewer where they are larger together."""

STEPS, LEARNING_RATE = 300, 3e-3


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a layer on a batch."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[Tensor, ...]
    """The tensors in what it returned, in order."""

    @property
    def bytes(self) -> int:
        """Of all tensors."""
        held = [*tensors_in(self.args), *tensors_in(dict(self.kwargs)), *self.outputs]
        return sum(tensor.numel() * tensor.element_size() for tensor in held)


def calls_of(model: nn.Module, path: str, central: CentralTask) -> list[Call]:
    """The calls of the layer at `path` in evaluation mode, on training examples drawn from the seed; none
    where the model does not call it.
    """
    model = deepcopy(model).eval()
    calls: list[Call] = []

    def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any) -> None:
        args, kwargs, outputs = map_tensors(torch.clone, (args, kwargs, outputs))
        calls.append(Call(args, kwargs, tuple(tensors_in(outputs))))

    model.get_submodule(path).register_forward_hook(record, with_kwargs=True)
    generator = torch.Generator().manual_seed(central.seed)
    order = torch.randperm(len(central.training), generator=generator)[:EXAMPLES]
    with torch.no_grad():
        for index in torch.split(order, BATCH):
            model(*central.training.take(index).arguments)
            if sum(call.bytes for call in calls) > MOST_BYTES:
                break
    return calls


def outputs_read(model: nn.Module, path: str, example_inputs: tuple[Tensor, ...]) -> tuple[bool, ...]:
    """For each float tensor that the layer at `path` returns, whether the outputs of the model depend on it."""
    model = deepcopy(model).eval()
    layer = model.get_submodule(path)
    count = 0

    def counted(_: nn.Module, __: Any, outputs: Any) -> None:
        nonlocal count
        count = len(list(tensors_in(outputs)))

    with torch.no_grad():
        with layer.register_forward_hook(counted):
            model(*example_inputs)
        return tuple(_is_read(model, layer, index, example_inputs) for index in range(count))


def _is_read(model: nn.Module, layer: nn.Module, index: int, example_inputs: tuple[Tensor, ...]) -> bool:
    """Not-a-number spreads to all that depends on it."""

    def spoilt(_: nn.Module, __: Any, outputs: Any) -> Any:
        numbers = iter(range(10**6))
        return map_tensors(lambda x: x * torch.nan if next(numbers) == index else x, outputs)

    with layer.register_forward_hook(spoilt):
        return any(bool(x.isnan().any()) for x in tensors_in(model(*example_inputs)))


def fitted(
    new: nn.Module, calls: Sequence[Call], seed: int = 0, read: Sequence[bool] | None = None
) -> tuple[nn.Module, float]:
    """A copy of `new` whose outputs are next to those of the calls, and the squared error that is left, as a share of
    the variance of the outputs, on a call that it did not learn from (where there are two or more).

    Of several output tensors those count that are `read`. Adam with a cosine schedule, in evaluation mode.
    """
    new = deepcopy(new).eval()
    read = read or [True] * len(calls[0].outputs)
    learnt, kept = list(calls[:-1]) or list(calls), calls[-1]
    optimizer = torch.optim.Adam(new.parameters(), lr=LEARNING_RATE)
    generator = torch.Generator().manual_seed(seed)
    best, weights = float(_error(new, kept, read).detach()), deepcopy(new.state_dict())
    for step in range(STEPS):
        call = learnt[int(torch.randint(len(learnt), (), generator=generator))]
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * 0.5 * (1 + cos(pi * step / STEPS))
        optimizer.zero_grad(set_to_none=True)
        _error(new, call, read).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        error = float(_error(new, kept, read))
    if not error < best:
        new.load_state_dict(weights)
    return new, min(error, best)


def _error(new: nn.Module, call: Call, read: Sequence[bool]) -> Tensor:
    """Squared error of a layer on one call, 0-d."""
    outputs = list(tensors_in(new(*call.args, **call.kwargs)))
    pairs = [
        pair for pair, is_read in zip(zip(outputs, call.outputs, strict=True), read, strict=True) if is_read
    ]
    return torch.stack(
        [((one - other) ** 2).mean() / other.var(correction=0).clamp(min=1e-12) for one, other in pairs]
    ).sum()
