"""One-dimensional CNN over windows of sensor samples."""

from __future__ import annotations

from torch import Tensor, nn


class Cnn1d(nn.Module):
    """Three convolutions over time with batch normalisation, an average over time, and a linear layer."""

    def __init__(self, signals: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_stage(signals, 32, 9), nn.MaxPool1d(2), *_stage(32, 64, 5), nn.MaxPool1d(2), *_stage(64, 64, 5)
        )
        self.fc = nn.Linear(64, classes)

    def forward(self, windows: Tensor) -> Tensor:
        """Windows float32 [n, samples, signals] to logits [n, classes]."""
        logits: Tensor = self.fc(self.layers(windows.transpose(1, 2)).mean(2))
        return logits


def _stage(inputs: int, outputs: int, kernel: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm1d(outputs), nn.ReLU()
