"""Labelled grey images: what the built-in image tasks share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from slimfleet.compression.modes import evaluating
from slimfleet.compression.task import Evaluation, Examples

EVALUATION_BATCH = 100
"""Keeps the activations of a small CNN inside a core's cache: larger batches are slower on a CPU."""


@dataclass(frozen=True, slots=True)
class Images:
    """Labelled grey images, kept as bytes and normalised on use.

    `pixels` is uint8 [n, height, width], `labels` int64 [n]; a pixel enters the model as
    (pixel / peak - mean) / std.
    """

    pixels: Tensor
    labels: Tensor
    peak: float
    mean: float
    std: float

    def __len__(self) -> int:
        return len(self.labels)

    def examples(self, index: Tensor | slice) -> Examples:
        """The images at `index` as float32 [n, 1, height, width] with their labels."""
        scaled = self.pixels[index].unsqueeze(1).to(torch.float32)
        normalised = scaled.mul_(1.0 / (self.peak * self.std)).sub_(self.mean / self.std)
        return Examples(normalised, self.labels[index])


def evaluate_images(model: nn.Module, images: Images, batch_size: int = EVALUATION_BATCH) -> Evaluation:
    """Mean cross-entropy and accuracy of `model` (logits [n, classes]) over all `images`.

    The model is evaluated in eval mode and gets its own mode back.
    """
    loss, correct = 0.0, 0
    with evaluating(model), torch.inference_mode():
        for start in range(0, len(images), batch_size):
            batch = images.examples(slice(start, start + batch_size))
            logits = model(batch.inputs)
            loss += float(functional.cross_entropy(logits, batch.targets, reduction="sum"))
            correct += int((logits.argmax(dim=1) == batch.targets).sum())
    return Evaluation(loss=loss / len(images), accuracy=correct / len(images))
