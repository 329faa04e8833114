"""A trained model on real digits, and any model on random data."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimfleet.client.tasks import TASKS
from slimfleet.compression.model.central import CentralTask, central_task
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.training.teachers import Teachers
from slimfleet.compression.model.training.tuning import Tuning, tune
from slimfleet.compression.task import Evaluation, Examples
from slimfleet.compression.validation_split import evaluate_on


@pytest.fixture(scope="session")
def central() -> CentralTask:
    """Digits, read once; everything that is drawn is drawn from seed 0."""
    torch.set_num_threads(1)
    return central_task(TASKS["digits"](partitions=1))


@pytest.fixture(scope="session")
def trained(central: CentralTask) -> SlimModel:
    """Eight epochs of digits: about 97 % right."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = central.task.build_model()
    return tune(SlimModel(model), central, Tuning(epochs=8, learning_rate=0.05))[0]


@dataclass(frozen=True)
class Toy:
    """A task of examples given; cross-entropy of logits, or `of`."""

    examples: Examples
    of: Callable[[Any, Tensor], Tensor] = F.cross_entropy
    name: str = "toy"
    partitions: int = 1
    build: Callable[[], nn.Module] | None = None

    def build_model(self) -> nn.Module:
        assert self.build is not None
        return self.build()

    def example_inputs(self) -> tuple[Tensor, ...]:
        return self.examples.take(slice(1)).arguments

    def load(self, partition: int) -> Examples:
        return self.examples

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        return self.of(outputs, targets)

    def evaluate(self, model: nn.Module) -> Evaluation:
        return evaluate_on(self, model, self.examples)


@pytest.fixture
def toy() -> Callable[..., CentralTask]:
    """`toy(*inputs, targets=..., of=...)`: a central task of these examples, half of them to validate on."""

    def make(*inputs: Tensor, targets: Tensor, of: Any = F.cross_entropy) -> CentralTask:
        examples = Examples(inputs if len(inputs) > 1 else inputs[0], targets)
        half = len(examples) // 2
        task = Toy(examples, of)
        return CentralTask(task, examples.take(slice(half)), examples.take(slice(half, None)))

    return make


@pytest.fixture
def taught(central: CentralTask, trained: SlimModel) -> CentralTask:
    """Digits with the trained model as teacher."""
    return replace(central, teachers=Teachers((trained.model,)))
