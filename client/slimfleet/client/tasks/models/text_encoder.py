"""Transformer encoder over token numbers, averaged over the tokens of each text (Vaswani et al. 2017, BERT's order)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slimfleet.client.tasks.text.vocabulary import PADDING


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of a Transformer encoder."""

    vocabulary: int
    length: int
    """Most tokens of a text."""
    channels: int
    """The model dimension."""
    heads: int
    hidden: int
    """Hidden units of the feed-forward layers."""
    layers: int
    dropout: float = 0.1
    epsilon: float = 1e-5
    """In layer normalisation, under the root."""


class TextEncoder(nn.Module):
    """Embeddings of tokens and places, `nn.TransformerEncoder`, the mean over the tokens, and a linear layer."""

    def __init__(self, sizes: Sizes, classes: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(sizes.vocabulary, sizes.channels)
        self.places = nn.Embedding(sizes.length, sizes.channels)
        self.norm = nn.LayerNorm(sizes.channels, eps=sizes.epsilon)
        self.dropout = nn.Dropout(sizes.dropout)
        layer = nn.TransformerEncoderLayer(
            sizes.channels,
            sizes.heads,
            sizes.hidden,
            sizes.dropout,
            activation="gelu",
            layer_norm_eps=sizes.epsilon,
            batch_first=True,
        )
        self.encoder = nn.TransformerEncoder(layer, sizes.layers, enable_nested_tensor=False)
        self.fc = nn.Linear(sizes.channels, classes)
        for embedding in (self.tokens, self.places):
            nn.init.normal_(embedding.weight, std=0.02)

    def embed(self, numbers: Tensor) -> Tensor:
        """Token numbers int64 [n, length], padded with 0, to float32 [n, channels]: the mean over the tokens."""
        present = numbers != PADDING
        places = torch.arange(numbers.shape[1], device=numbers.device)
        hidden = self.dropout(self.norm(self.tokens(numbers) + self.places(places)))
        hidden = self.encoder(hidden, src_key_padding_mask=~present)
        kept = present.unsqueeze(2)
        mean: Tensor = (hidden * kept).sum(1) / kept.sum(1)
        return mean

    def forward(self, numbers: Tensor) -> Tensor:
        """Token numbers int64 [n, length], padded with 0, to logits [n, classes]."""
        logits: Tensor = self.fc(self.embed(numbers))
        return logits
