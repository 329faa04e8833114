"""A tiny task for simulations in tests: points on two rings, told apart by a small network that shrinks."""

import numpy as np
import torch
from torch import nn

from slimfleet.client.tasks import dirichlet_partition
from slimfleet.compression import Evaluation, Examples


class Points:
    """`spread` is the width of the rings."""

    name = "points"

    def __init__(self, partitions: int, seed: int, alpha: float, spread: float = 0.3) -> None:
        self.partitions = partitions
        rng = np.random.default_rng(seed)
        self._targets = np.arange(40 * partitions) % 2
        radius, angle = (
            self._targets + rng.normal(1.0, spread, len(self._targets)),
            rng.uniform(0, 6.28, 40 * partitions),
        )
        self._inputs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)
        self._parts = dirichlet_partition(self._targets, partitions, alpha, rng, minimum=4)

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 2))

    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        return (torch.zeros(1, 2),)

    def load(self, partition: int) -> Examples:
        return self._examples(self._parts[partition])

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    def evaluate(self, model: nn.Module) -> Evaluation:
        everything = self._examples(np.arange(len(self._targets)))
        with torch.no_grad():
            outputs = model(everything.inputs)
        accuracy = float((outputs.argmax(1) == everything.targets).float().mean())
        return Evaluation(float(self.loss(outputs, everything.targets)), accuracy)

    def _examples(self, index: np.ndarray) -> Examples:
        return Examples(torch.from_numpy(self._inputs[index]), torch.from_numpy(self._targets[index]))
