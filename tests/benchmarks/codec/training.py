"""Plain training: momentum SGD on a given set of examples, and federated averaging of a few clients."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from slimfleet.compression.task import Examples

State = dict[str, Tensor]


def train(model: nn.Module, examples: Examples, steps: int, rate: float, seed: int, batch: int = 32) -> None:
    """`steps` steps of SGD with momentum 0.9, over shuffled examples again and again, in place."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    order = torch.empty(0, dtype=torch.int64)
    model.train()
    for _ in range(steps):
        if len(order) < batch:
            order = torch.randperm(len(examples.targets), generator=generator)
        chosen, order = order[:batch], order[batch:]
        optimiser.zero_grad()
        functional.cross_entropy(model(examples.inputs[chosen]), examples.targets[chosen]).backward()
        optimiser.step()


def local_update(model: nn.Module, examples: Examples, rate: float, seed: int) -> State:
    """What one epoch on one client changes; `model` itself stays as it is."""
    local = copy.deepcopy(model)
    train(local, examples, len(examples.targets) // 32, rate, seed)
    before = model.state_dict()
    return {name: after - before[name] for name, after in local.state_dict().items()}


def mean(updates: Sequence[State]) -> State:
    """The global update: the plain mean, which is right for clients of equally many examples."""
    return {name: torch.stack([u[name].double() for u in updates]).mean(0).float() for name in updates[0]}


def apply(model: nn.Module, update: State) -> None:
    """Add a global update to the model, in place."""
    state = model.state_dict()
    model.load_state_dict({name: tensor + update[name].to(tensor.dtype) for name, tensor in state.items()})
