"""Recurrent networks over a sequence of features, of which each example may have its own length."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SequenceClassifier(nn.Module):
    """A GRU or LSTM, its outputs averaged over the steps of each example, and a linear layer.

    The mean of all outputs, not the last one, which needs no sorting or packing. Padding of zeros does not change it,
    but for a bidirectional layer: its way back begins there.
    """

    def __init__(self, recurrent: nn.GRU | nn.LSTM, classes: int) -> None:
        super().__init__()
        self.recurrent = recurrent
        self.fc = nn.Linear(recurrent.hidden_size * (2 if recurrent.bidirectional else 1), classes)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Features float32 [n, steps, size] and lengths int64 [n], at least 1, to logits [n, classes]."""
        hidden, _ = self.recurrent(features)
        logits: Tensor = self.fc(mean_of_steps(hidden, lengths))
        return logits


def mean_of_steps(hidden: Tensor, lengths: Tensor) -> Tensor:
    """The mean of [n, steps, size] over the first `lengths` (int64 [n], at least 1) steps of each example."""
    present = torch.arange(hidden.shape[1], device=hidden.device) < lengths.unsqueeze(1)
    return (hidden * present.unsqueeze(2)).sum(1) / lengths.unsqueeze(1)


def gru(features: int, classes: int, hidden: int = 128) -> nn.Module:
    """One layer of a GRU."""
    return SequenceClassifier(nn.GRU(features, hidden, batch_first=True), classes)


def lstm(features: int, classes: int, hidden: int = 96) -> nn.Module:
    """One layer of a bidirectional LSTM."""
    return SequenceClassifier(nn.LSTM(features, hidden, batch_first=True, bidirectional=True), classes)


class WindowClassifier(nn.Module):
    """A GRU over windows of one length, its outputs averaged over time, and a linear layer."""

    def __init__(self, features: int, classes: int, hidden: int = 64) -> None:
        super().__init__()
        self.recurrent = nn.GRU(features, hidden, batch_first=True)
        self.fc = nn.Linear(hidden, classes)

    def forward(self, windows: Tensor) -> Tensor:
        """Windows float32 [n, steps, features] to logits [n, classes]."""
        hidden, _ = self.recurrent(windows)
        logits: Tensor = self.fc(hidden.mean(1))
        return logits
