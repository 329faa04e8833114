"""MobileNet in the style of Howard et al. 2017 (arXiv 1704.04861), sized for pictures of 28x28 pixels."""

from __future__ import annotations

from torch import Tensor, nn

from slimfleet.client.tasks.models.separable import separable

BLOCKS = ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (256, 1), (256, 1), (256, 1))
"""Channels and stride of each block."""


class MobileNet(nn.Module):
    """A 3x3 convolution, eight depthwise-separable blocks that end at 7x7, an average and a linear layer."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        inputs = (16, *(outputs for outputs, _ in BLOCKS))
        self.blocks = nn.Sequential(
            *(
                separable(before, after, stride)
                for before, (after, stride) in zip(inputs, BLOCKS, strict=False)
            )
        )
        self.fc = nn.Linear(inputs[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images float32 [n, 1, 28, 28] to logits [n, classes]."""
        logits: Tensor = self.fc(self.blocks(self.stem(images)).mean((2, 3)))
        return logits
