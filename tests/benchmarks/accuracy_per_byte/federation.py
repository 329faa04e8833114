"""The clients of one seed: their images, the model they start from, and the participants of each round."""

from __future__ import annotations

import math

import numpy as np
import torch
from model import StridedCnn
from numpy.typing import NDArray
from settings import Settings
from torch import Tensor, nn

from slimfleet.client.tasks.fashion_mnist import FashionMnist
from slimfleet.client.tasks.partition import dirichlet_partition
from slimfleet.client.training import local_sgd
from slimfleet.compression import Examples, Plan, Training
from slimfleet.compression.tensors import load_tensors, schema_of, tensors_of
from slimfleet.compression.training import shuffled
from slimfleet.compression.types import Tensors

_SPLIT, _TAKING_PART, _LOCAL = 1, 2, 3
"""Streams of random numbers; none of them depends on the method, so that methods are compared pair by pair."""


class Federation:
    """Everything that two methods on the same seed share."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self._task = FashionMnist(partitions=1, alpha=math.inf, seed=seed)
        self.data = _split(self._task.load(0), settings, seed)
        torch.manual_seed(seed)
        self._model: nn.Module = StridedCnn().to(memory_format=torch.channels_last)
        self.start = tensors_of(self._model)
        self.schema = schema_of(self._model)

    def chosen(self, round_number: int) -> list[int]:
        """The clients of a round (from 1), in order."""
        rng = np.random.default_rng((self.seed, _TAKING_PART, round_number))
        return sorted(
            int(c) for c in rng.choice(self.settings.clients, self.settings.per_round, replace=False)
        )

    def update(self, weights: Tensors, client: int, round_number: int) -> Tensors:
        """What local training changes in `weights`: float32 by name."""
        load_tensors(self._model.train(), weights)
        examples, settings = self.data[client], self.settings
        rng = np.random.default_rng((self.seed, _LOCAL, round_number, client))
        local_sgd(
            self._model,
            self._task,
            shuffled(examples, settings.batch_size, rng),
            Plan(width=1.0, local_steps=settings.local_steps, batch_size=settings.batch_size, nmse=0.0),
            Training(learning_rate=settings.rate(round_number), momentum=settings.momentum),
            may_step=lambda: None,
            stepped=lambda examples: None,
        )
        return {name: after - weights[name] for name, after in tensors_of(self._model).items()}

    def accuracy(self, weights: Tensors) -> float:
        """Share of the 10,000 test images that the model gets right."""
        load_tensors(self._model, weights)
        return self._task.evaluate(self._model).accuracy


def _split(examples: Examples, settings: Settings, seed: int) -> list[Examples]:
    rng = np.random.default_rng((seed, _SPLIT))
    labels: NDArray[np.int64] = examples.targets.numpy()
    parts = dirichlet_partition(labels, settings.clients, settings.alpha, rng, minimum=settings.batch_size)
    indices: list[Tensor] = [torch.from_numpy(part) for part in parts]
    return [
        Examples(examples.inputs[i].contiguous(memory_format=torch.channels_last), examples.targets[i])
        for i in indices
    ]
