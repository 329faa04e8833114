"""Fashion-MNIST task (Xiao, Rasul and Vollgraf, 2017, arXiv 1708.07747) from four IDX files on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from slimfleet.client.tasks.idx import find_idx, read_idx
from slimfleet.client.tasks.images import Images, evaluate_images
from slimfleet.client.tasks.models.lenet import lenet_5, lenet_300_100
from slimfleet.client.tasks.models.mobilenet import MobileNet
from slimfleet.client.tasks.models.resnet import ResNet20
from slimfleet.client.tasks.options import check_choice, check_count, check_options
from slimfleet.client.tasks.partition import dirichlet_partition
from slimfleet.compression.errors import BadInput
from slimfleet.compression.task import Evaluation, Examples

ENVIRONMENT = "SLIMFLEET_FASHION_MNIST"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
TEST_EXAMPLES = 10_000
LEAST_EXAMPLES = 10

Root = Path | str | None


@dataclass(frozen=True)
class FashionMnist:
    """The 60,000 training images, label-skewed over `partitions` devices; evaluation on the 10,000 test
    images.

    `root` is the folder of the four IDX files, gzipped or plain; None takes the folder that the environment
    variable SLIMFLEET_FASHION_MNIST names, else Debian's. `evaluation_examples` below 10,000 evaluates on a
    seeded sample of the test images. `model` is one of `MODELS`. Raises BadInput at once when the files are
    absent, and on first use when they are damaged.
    """

    partitions: int
    alpha: float = 0.5
    seed: int = 0
    root: Root = None
    evaluation_examples: int = TEST_EXAMPLES
    model: str = "cnn"

    def __post_init__(self) -> None:
        check_options(self.partitions, self.alpha, self.seed)
        check_count("evaluation_examples", self.evaluation_examples, most=TEST_EXAMPLES)
        check_choice("model", self.model, MODELS)
        _locate(_folder(self.root))

    def __reduce__(self) -> tuple[type[FashionMnist], tuple[object, ...]]:
        """Pickle the arguments, not the pixels: every process loads its own."""
        return type(self), tuple(getattr(self, field.name) for field in fields(self))

    @property
    def name(self) -> str:
        """`fashion-mnist`."""
        return "fashion-mnist"

    def build_model(self) -> nn.Module:
        """The model of that name, freshly initialised from torch's generator."""
        return MODELS[self.model]()

    def example_inputs(self) -> tuple[Tensor, ...]:
        """One float32 tensor [1, 1, 28, 28]."""
        return (torch.zeros(1, 1, 28, 28),)

    def load(self, partition: int) -> Examples:
        """Inputs float32 [n, 1, 28, 28] and targets int64 [n] of one device."""
        return self._train.examples(self._indices[partition])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of logits [n, 10]."""
        return functional.cross_entropy(outputs, targets)

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Loss and accuracy on the test images, or on the sample of them."""
        return evaluate_images(model, self._test)

    @cached_property
    def _train(self) -> Images:
        return self._read("train")

    @cached_property
    def _indices(self) -> list[Tensor]:
        rng = np.random.default_rng([self.seed, 1])
        labels = self._train.labels.numpy()
        parts = dirichlet_partition(labels, self.partitions, self.alpha, rng, minimum=LEAST_EXAMPLES)
        return [torch.from_numpy(part) for part in parts]

    @cached_property
    def _test(self) -> Images:
        test = self._read("t10k")
        if self.evaluation_examples >= len(test):
            return test
        sample = np.random.default_rng([self.seed, 0]).choice(
            len(test), self.evaluation_examples, replace=False
        )
        index = torch.from_numpy(np.sort(sample))
        return Images(test.pixels[index], test.labels[index], test.peak, test.mean, test.std)

    def _read(self, part: str) -> Images:
        files = _locate(_folder(self.root))
        pixels = read_idx(files[f"{part}-images-idx3-ubyte"], dimensions=3)
        labels = read_idx(files[f"{part}-labels-idx1-ubyte"], dimensions=1)
        if pixels.shape != (len(labels), 28, 28) or labels.max(initial=0) > 9:
            raise BadInput(
                f"{files[f'{part}-images-idx3-ubyte']} holds images {list(pixels.shape)} for {len(labels)} "
                f"labels up to {labels.max(initial=0)}; Fashion-MNIST has 28x28 images with a label 0..9 each"
            )
        # Copies: torch needs writable memory, and the reader returns the bytes of the file.
        return Images(
            torch.from_numpy(pixels.copy()),
            torch.from_numpy(labels.astype(np.int64)),
            peak=255.0,
            mean=0.2860,
            std=0.3530,
        )


class FashionCnn(nn.Module):
    """Two 5x5 convolutions and two linear layers: 101,682 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, kernel_size=5, padding=2)
        self.conv2 = nn.Conv2d(16, 32, kernel_size=5, padding=2)
        self.fc1 = nn.Linear(32 * 7 * 7, 56)
        self.fc2 = nn.Linear(56, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Images float32 [n, 1, 28, 28] to logits [n, 10]."""
        hidden = functional.max_pool2d(functional.relu(self.conv1(images)), 2)
        hidden = functional.max_pool2d(functional.relu(self.conv2(hidden)), 2)
        logits: Tensor = self.fc2(functional.relu(self.fc1(hidden.flatten(1))))
        return logits


MODELS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {
        "cnn": FashionCnn,
        "lenet-300-100": lenet_300_100,
        "lenet-5": lenet_5,
        "mobilenet": MobileNet,
        "resnet20": ResNet20,
    }
)


def _folder(root: Root) -> Path:
    return Path(root or os.environ.get(ENVIRONMENT) or DEBIAN_FOLDER)


def _locate(folder: Path) -> dict[str, Path]:
    """The four files by their plain names; BadInput saying how to get them when one is missing."""
    names = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    found = {name: path for name in names if (path := find_idx(folder, name))}
    if len(found) < len(names):
        missing = next(name for name in names if name not in found)
        raise BadInput(
            f"Fashion-MNIST is not in {folder} (no {missing}[.gz]): run `apt-get install "
            f"dataset-fashion-mnist`, or give a folder with the four IDX files by the option root or in "
            f"{ENVIRONMENT}"
        )
    return found
