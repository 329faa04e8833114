"""Digits task: handwritten digits, 8x8, that come with scikit-learn; the quickstart downloads nothing."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from slimfleet.client.tasks.images import Images, evaluate_images
from slimfleet.client.tasks.options import check_options
from slimfleet.client.tasks.partition import Index, dirichlet_partition
from slimfleet.client.tasks.stratified import held_out
from slimfleet.compression.errors import BadInput
from slimfleet.compression.files import naming
from slimfleet.compression.task import Evaluation, Examples

HELD_OUT = 0.2
LEAST_EXAMPLES = 4


@dataclass(frozen=True)
class Digits:
    """The 1797 digits of scikit-learn (UCI optical recognition test set), label-skewed over `partitions`
    devices.

    One fifth, stratified by class, is held out for evaluation; `seed` decides the split and the partition.
    Raises BadInput when scikit-learn is missing or there are fewer than four digits for every device.
    """

    partitions: int
    alpha: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_options(self.partitions, self.alpha, self.seed)

    def __reduce__(self) -> tuple[type[Digits], tuple[int, float, int]]:
        """Pickle the arguments, not the pixels: every process loads its own."""
        return type(self), (self.partitions, self.alpha, self.seed)

    @property
    def name(self) -> str:
        """`digits`."""
        return "digits"

    def build_model(self) -> nn.Module:
        """A `DigitsCnn`, freshly initialised from torch's generator."""
        return DigitsCnn()

    def example_inputs(self) -> tuple[Tensor, ...]:
        """One float32 tensor [1, 1, 8, 8]."""
        return (torch.zeros(1, 1, 8, 8),)

    def load(self, partition: int) -> Examples:
        """Inputs float32 [n, 1, 8, 8] and targets int64 [n] of one device."""
        return self._all.examples(self._indices[partition])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of logits [n, 10]."""
        return functional.cross_entropy(outputs, targets)

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Loss and accuracy on the held-out fifth."""
        return evaluate_images(model, self._held_out)

    @cached_property
    def _all(self) -> Images:
        pixels, labels = _table()
        return Images(
            torch.from_numpy(pixels),
            torch.from_numpy(labels),
            peak=16.0,
            mean=0.3053,
            std=0.3760,
        )

    @cached_property
    def _split(self) -> tuple[Index, Index]:
        """Numbers of the training and of the held-out digits."""
        return held_out(self._all.labels.numpy(), HELD_OUT, np.random.default_rng([self.seed, 0]))

    @cached_property
    def _indices(self) -> list[Tensor]:
        train, _ = self._split
        labels = self._all.labels.numpy()[train]
        rng = np.random.default_rng([self.seed, 1])
        parts = dirichlet_partition(labels, self.partitions, self.alpha, rng, minimum=LEAST_EXAMPLES)
        return [torch.from_numpy(train[part]) for part in parts]

    @cached_property
    def _held_out(self) -> Images:
        index = torch.from_numpy(self._split[1])
        whole = self._all
        return Images(whole.pixels[index], whole.labels[index], whole.peak, whole.mean, whole.std)


def _table() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels [1797, 8, 8] of 0..16 and labels [1797], from the file in scikit-learn's folder: importing it takes longer
    than most of a quickstart's rounds."""
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise BadInput(
            "the digits come with scikit-learn, which is not installed: pip install 'slimfleet[simulation]'"
        )
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    with naming(path, "read"), gzip.open(path, "rt", encoding="ascii") as file:
        rows = np.loadtxt(file, delimiter=",", dtype=np.float64)
    return rows[:, :-1].astype(np.uint8).reshape(-1, 8, 8), rows[:, -1].astype(np.int64)


class DigitsCnn(nn.Module):
    """Two 3x3 convolutions with group normalisation and one linear layer: 7,570 parameters.

    Group normalisation, because batch statistics mean nothing over the seven digits of one device; in pairs of
    channels, because a normalised group can only be cut as a whole.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, kernel_size=3, padding=1)
        self.norm1 = nn.GroupNorm(8, 16)
        self.conv2 = nn.Conv2d(16, 24, kernel_size=3, padding=1)
        self.norm2 = nn.GroupNorm(12, 24)
        self.fc = nn.Linear(24 * 4 * 4, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Images float32 [n, 1, 8, 8] to logits [n, 10]."""
        hidden = functional.relu(self.norm1(self.conv1(images)))
        hidden = functional.max_pool2d(functional.relu(self.norm2(self.conv2(hidden))), 2)
        logits: Tensor = self.fc(hidden.flatten(1))
        return logits
