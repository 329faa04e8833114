"""Models of torch.nn alone: recurrent classifiers, Transformers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WORDS = 1000


class Recurrent(nn.Module):
    """Reads frames (batch, length, 40) with a recurrent layer and classifies the last state."""

    def __init__(
        self, layer: type[nn.RNNBase], classes: int, layers: int = 1, both_ways: bool = False
    ) -> None:
        super().__init__()
        self.layer = layer(40, 128, num_layers=layers, batch_first=True, bidirectional=both_ways)
        self.out = nn.Linear(128 * (1 + both_ways), classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(x)[0][:, -1])


class Tagger(nn.Module):
    """Words (batch, length) -> classes of each word, (batch, classes, length)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 64)
        self.layer = nn.LSTM(64, 96, num_layers=2, batch_first=True, bidirectional=True)
        self.out = nn.Linear(192, classes)

    def forward(self, words: Tensor) -> Tensor:
        return self.out(self.layer(self.embed(words))[0]).transpose(1, 2)


class Encoder(nn.Module):
    """Words (batch, length), 0 for padding -> classes of the text, by nn.TransformerEncoder."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 128)
        layer = nn.TransformerEncoderLayer(128, 4, 256, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3)
        self.out = nn.Linear(128, classes)

    def forward(self, words: Tensor) -> Tensor:
        padding = words == 0
        states = self.encoder(self.embed(words), src_key_padding_mask=padding)
        kept = (~padding).unsqueeze(-1)
        return self.out((states * kept).sum(1) / kept.sum(1).clamp(min=1))


class Translator(nn.Module):
    """Two texts (batch, length) -> next words of the second, (batch, classes, length), by nn.Transformer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 128)
        self.transformer = nn.Transformer(128, 4, 2, 2, 256, batch_first=True)
        self.out = nn.Linear(128, classes)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = torch.full((target.shape[1],) * 2, float("-inf")).triu(1)
        states = self.transformer(self.embed(source), self.embed(target), tgt_mask=mask, tgt_is_causal=True)
        return self.out(states).transpose(1, 2)


class Keywords(nn.Module):
    """Sound features (batch, 40, length) -> classes: dilated 1-d convolutions, then a GRU."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            *(nn.Conv1d(40, 64, 3, padding=1), nn.BatchNorm1d(64), nn.ReLU()),
            *(nn.Conv1d(64, 64, 3, padding=2, dilation=2), nn.BatchNorm1d(64), nn.ReLU()),
        )
        self.layer = nn.GRU(64, 96, batch_first=True)
        self.out = nn.Linear(96, classes)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.layer(self.convolutions(x).transpose(1, 2))
        return self.out(states.mean(dim=1))
