"""Real updates to code: one client's local epoch on Fashion-MNIST, and the global update of the round before.

A model is trained on pooled data up to an early or a late stage; a small fleet then runs two rounds of federated
averaging, and a third begins: what its first client sends is the update. The second round's global update, which
client and server both hold by then, is the side information.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from measure import Arrays
from models import ResNet
from torch import nn
from training import State, apply, local_update, mean, train

from slimfleet.client.tasks.fashion_mnist import FashionCnn, FashionMnist
from slimfleet.compression.task import Examples

PARTITIONS, ALPHA = 30, 0.3
CLIENT_EXAMPLES = 2000
ROUNDS = 2
LOCAL_RATE = 0.01
SEED = 7

_OBSERVED = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True, slots=True)
class Update:
    """Trained float32 tensors by name: what one client changed, and the last global update where it is known."""

    name: str
    arrays: Arrays
    reference: Arrays | None

    def weights_only(self) -> Update:
        """Without biases and the vectors of norms."""
        return Update(
            self.name,
            {name: array for name, array in self.arrays.items() if array.ndim >= 2},
            self.reference and {name: a for name, a in self.reference.items() if a.ndim >= 2},
        )


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the global model comes about: `steps` of 64 pooled examples, then rounds of `clients` clients."""

    build: Callable[[], nn.Module]
    steps: int
    rate: float
    clients: int
    first: int = 0
    """Which of the clients with enough examples is coded."""


RECIPES = {
    "small_late": Recipe(FashionCnn, steps=800, rate=0.03, clients=10, first=0),
    "res_early": Recipe(ResNet, steps=25, rate=0.03, clients=5, first=1),
    "small_early": Recipe(FashionCnn, steps=25, rate=0.03, clients=10, first=2),
    "res_late": Recipe(ResNet, steps=350, rate=0.05, clients=5, first=3),
}


def make(name: str) -> tuple[Update, str]:
    """The update of that recipe, and a line about the model behind it. Up to three minutes for the ResNet."""
    recipe = RECIPES[name]
    torch.manual_seed(SEED)
    model = recipe.build()
    train(model, _pooled(), recipe.steps, recipe.rate, SEED, batch=64)
    fleet = [_large_clients()[(recipe.first + i) % len(_large_clients())] for i in range(recipe.clients)]
    reference: State = {}
    for number in range(ROUNDS):
        reference = mean([local_update(model, _client(c), LOCAL_RATE, 100 * number + c) for c in fleet])
        apply(model, reference)
    update = local_update(model, _client(fleet[0]), LOCAL_RATE, 100 * ROUNDS + fleet[0])
    accuracy = _task().evaluate(model).accuracy
    about = f"partition {fleet[0]}, one of {len(fleet)} clients, {CLIENT_EXAMPLES:,} examples, accuracy {accuracy:.3f}"
    return Update(name, _trained(update), _trained(reference)), about


def read(path: Path) -> Update:
    """An update from a file of float32 arrays; `NAME.reference.npz` beside it is its last global update."""
    beside = path.with_suffix(".reference.npz")
    return Update(path.stem, _read(path), _read(beside) if beside.exists() else None)


def write(update: Update, folder: Path) -> None:
    """NAME.npz and NAME.reference.npz, as `read` wants them."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / f"{update.name}.npz", **update.arrays)
    if update.reference:
        np.savez(folder / f"{update.name}.reference.npz", **update.reference)


def _read(path: Path) -> Arrays:
    with np.load(path) as file:
        return {name: file[name] for name in file.files if not name.endswith(_OBSERVED)}


def _trained(state: State) -> Arrays:
    return {name: tensor.numpy() for name, tensor in state.items() if not name.endswith(_OBSERVED)}


@cache
def _task() -> FashionMnist:
    return FashionMnist(PARTITIONS, alpha=ALPHA, seed=SEED)


@cache
def _pooled() -> Examples:
    parts = [_task().load(partition) for partition in range(PARTITIONS)]
    return Examples(torch.cat([p.inputs for p in parts]), torch.cat([p.targets for p in parts]))


@cache
def _large_clients() -> list[int]:
    """The partitions with enough examples, all of which a client then has."""
    return [p for p in range(PARTITIONS) if len(_task().load(p)) >= CLIENT_EXAMPLES]


def _client(partition: int) -> Examples:
    examples = _task().load(partition)
    return Examples(examples.inputs[:CLIENT_EXAMPLES], examples.targets[:CLIENT_EXAMPLES])
