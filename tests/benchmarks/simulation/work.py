"""The work that every engine is given: federated averaging of a small model over 1,000 devices of 60 images each.

Fashion-MNIST as Debian packages it, dealt out evenly; a device trains one epoch in three batches of 20, by SGD without
momentum. Needs torch and numpy alone, so that every engine can be given the same models, first weights, cohorts and
images in an environment of its own.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

FOLDER = Path("/usr/share/datasets/fashion-mnist")
DEVICES, EXAMPLES, BATCH, COHORT, LEARNING_RATE = 1_000, 60, 20, 50, 0.05


class Cnn(nn.Module):
    """Two 3x3 convolutions and two linear layers: 67,970 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.fc1 = nn.Linear(1568, 40)
        self.fc2 = nn.Linear(40, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, 10] of images float32 [n, 1, 28, 28]."""
        hidden = functional.max_pool2d(functional.relu(self.conv1(images)), 2)
        hidden = functional.max_pool2d(functional.relu(self.conv2(hidden)), 2)
        logits: Tensor = self.fc2(functional.relu(self.fc1(hidden.flatten(1))))
        return logits


class Mlp(nn.Module):
    """Two linear layers: 7,960 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 10)
        self.fc2 = nn.Linear(10, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, 10] of images float32 [n, 784]."""
        logits: Tensor = self.fc2(functional.relu(self.fc1(images)))
        return logits


MODELS: Mapping[str, Callable[[], nn.Module]] = {"cnn": Cnn, "mlp": Mlp}


@cache
def images(model: str) -> tuple[Tensor, Tensor]:
    """Inputs float32 [1000, 60, ...] as the model takes them, and labels int64 [1000, 60]."""
    pixels = np.frombuffer(
        gzip.decompress((FOLDER / "train-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16
    )
    labels = np.frombuffer(
        gzip.decompress((FOLDER / "train-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8
    )
    order = np.random.default_rng(0).permutation(len(labels))
    shape = (1, 28, 28) if model == "cnn" else (784,)
    scaled = (pixels.reshape(len(labels), *shape)[order].astype(np.float32) / 255 - 0.2860) / 0.3530
    inputs = torch.from_numpy(scaled.reshape(DEVICES, EXAMPLES, *shape))
    return inputs, torch.from_numpy(labels[order].astype(np.int64).reshape(DEVICES, EXAMPLES))


@dataclass(frozen=True, slots=True)
class Cohorts:
    """Who takes part in each round, and in which order a device takes its images."""

    devices: NDArray[np.int64]
    """[rounds, cohort]"""
    orders: NDArray[np.int64]
    """[rounds, cohort, images]"""

    def save(self, path: Path) -> None:
        """Keep them in a file that `read` reads."""
        np.savez(path, devices=self.devices, orders=self.orders)

    @classmethod
    def read(cls, path: Path) -> Cohorts:
        """Those in a file."""
        with np.load(path) as content:
            return cls(content["devices"], content["orders"])

    def data(self, model: str, number: int, place: int) -> tuple[Tensor, Tensor]:
        """Inputs and labels of a device of round `number`, from 0, in order."""
        inputs, labels = images(model)
        device, order = (
            int(self.devices[number, place]) % DEVICES,
            torch.from_numpy(self.orders[number, place]),
        )
        return inputs[device][order], labels[device][order]


def first(model: str) -> nn.Module:
    """A model with its first weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return MODELS[model]()


def finish(engine: str, model: str, ends_s: list[float], weights: Mapping[str, Tensor], folder: Path) -> None:
    """Leave what an engine has done in `folder`: when each round ended, by one clock, and the last weights."""
    np.savez(
        folder / f"{engine}-{model}.npz", **{name: each.detach().numpy() for name, each in weights.items()}
    )
    (folder / f"{engine}-{model}.json").write_text(json.dumps(ends_s))
