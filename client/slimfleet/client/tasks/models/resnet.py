"""ResNet-20 for small pictures (He et al. 2015, arXiv 1512.03385, section 4.2)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

STAGES = (16, 32, 64)
BLOCKS = 3


class ResNet20(nn.Module):
    """A 3x3 convolution, three stages of three residual blocks (16, 32 and 64 channels), an average, a linear layer.

    Where a stage begins, the shortcut is a 1x1 convolution (the paper's option B): padding with zero channels (option
    A) would tie the channels of the stages together.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, STAGES[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(STAGES[0])
        blocks, inputs = [], STAGES[0]
        for channels in STAGES:
            for turn in range(BLOCKS):
                blocks.append(
                    ResidualBlock(inputs, channels, stride=2 if turn == 0 and channels != inputs else 1)
                )
                inputs = channels
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Images float32 [n, 1, height, width] to logits [n, classes]."""
        hidden = functional.relu(self.norm(self.conv(images)))
        logits: Tensor = self.fc(self.blocks(hidden).mean((2, 3)))
        return logits


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, hidden: Tensor) -> Tensor:
        """[n, inputs, h, w] to [n, outputs, h / stride, w / stride]."""
        inner = functional.relu(self.norm1(self.conv1(hidden)))
        return functional.relu(self.norm2(self.conv2(inner)) + self.shortcut(hidden))
