"""DS-CNN: depthwise-separable convolutions for keyword spotting (Zhang et al. 2017, arXiv 1711.07128)."""

from __future__ import annotations

from torch import Tensor, nn

from slimfleet.client.tasks.models.recurrent import mean_of_steps
from slimfleet.client.tasks.models.separable import separable

CHANNELS = 64
BLOCKS = 4


class DsCnn(nn.Module):
    """A 10x4 convolution with stride 2 and four depthwise-separable 3x3 blocks, averaged over time and feature.

    As the paper's small model, on pictures of time by cepstral coefficient; the average leaves out padding.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, CHANNELS, (10, 4), stride=2, padding=(5, 1), bias=False),
            nn.BatchNorm2d(CHANNELS),
            nn.ReLU(),
        )
        self.blocks = nn.Sequential(*(separable(CHANNELS, CHANNELS) for _ in range(BLOCKS)))
        self.fc = nn.Linear(CHANNELS, classes)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Features float32 [n, steps, size] and lengths int64 [n], at least 1, to logits [n, classes]."""
        hidden = self.blocks(self.stem(features.unsqueeze(1)))
        over_time = hidden.mean(3).transpose(1, 2)
        logits: Tensor = self.fc(mean_of_steps(over_time, (lengths + 1) // 2))
        return logits
