"""The two models whose updates are coded; the small CNN is slimfleet's own, the ResNet is defined here."""

from __future__ import annotations

import itertools

from torch import Tensor, nn
from torch.nn import functional

CHANNELS = (24, 48, 96, 208)


class ResNet(nn.Module):
    """Three residual blocks with batch norm: 754,802 trained parameters, 2,048 floats of statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, CHANNELS[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(CHANNELS[0])
        pairs = itertools.pairwise(CHANNELS)
        self.blocks = nn.Sequential(*(Block(narrow, wide) for narrow, wide in pairs))
        self.head = nn.Linear(CHANNELS[-1], 10)

    def forward(self, images: Tensor) -> Tensor:
        """Images float32 [n, 1, 28, 28] to logits [n, 10]."""
        hidden = self.blocks(functional.relu(self.norm(self.stem(images))))
        logits: Tensor = self.head(hidden.mean((2, 3)))
        return logits


class Block(nn.Module):
    """Two 3x3 convolutions, the first with stride 2, beside a 1x1 convolution with stride 2."""

    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(wide)
        self.short = nn.Sequential(nn.Conv2d(narrow, wide, 1, stride=2, bias=False), nn.BatchNorm2d(wide))

    def forward(self, images: Tensor) -> Tensor:
        """Half the height and width, `wide` channels."""
        hidden = functional.relu(self.norm1(self.conv1(images)))
        return functional.relu(self.norm2(self.conv2(hidden)) + self.short(images))
