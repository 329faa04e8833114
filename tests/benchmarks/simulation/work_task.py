"""The work of the benchmark as a task of slimfleet's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from work import DEVICES, first, images

from slimfleet.compression import Evaluation, Examples


class Work:
    """The work as a task; devices beyond the thousandth share the images of the first."""

    def __init__(
        self, partitions: int = DEVICES, seed: int = 0, model: str = "cnn", alpha: float = 1.0
    ) -> None:
        self.partitions, self.model = partitions, model

    def __reduce__(self) -> tuple[type[Work], tuple[object, ...]]:
        """Every process reads the images itself."""
        return Work, (self.partitions, 0, self.model)

    name = "simulated-work"

    def build_model(self) -> nn.Module:
        """The model, with first weights that do not depend on torch's generator."""
        return first(self.model)

    def example_inputs(self) -> tuple[Tensor, ...]:
        """A batch of one."""
        return (torch.zeros(1, *self._images[0].shape[2:]),)

    def load(self, partition: int) -> Examples:
        """The images of one device."""
        inputs, labels = self._images
        return Examples(inputs[partition % DEVICES], labels[partition % DEVICES])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of logits [n, 10]."""
        return functional.cross_entropy(outputs, targets)

    def evaluate(self, model: nn.Module) -> Evaluation:
        """The loss on the images of ten devices: no engine is measured while it evaluates."""
        inputs, labels = self._images
        with torch.inference_mode():
            return Evaluation(loss=float(self.loss(model(inputs[:10].flatten(0, 1)), labels[:10].flatten())))

    @property
    def _images(self) -> tuple[Tensor, Tensor]:
        return images(self.model)
