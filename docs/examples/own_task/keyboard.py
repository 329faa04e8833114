"""Keyboard task: predict the next character of English.

The text is real and comes with Python: the language manual behind `help()`, some 450,000 characters in 79 topics. Each
device types about its own topics, so no two devices see the same words.
"""

from dataclasses import dataclass
from functools import cached_property
from pydoc_data.topics import topics

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from slimfleet.client.tasks import dirichlet_partition
from slimfleet.compression import Evaluation, Examples

ALPHABET = " abcdefghijklmnopqrstuvwxyz0123456789.,:;()'\"-_=*"
LENGTH = 32
HELD_OUT = 20
"""Every twentieth stretch of text is held out."""


@dataclass(frozen=True)
class Keyboard:
    """Stretches of 32 characters, each with its next character; slimfleet passes these three arguments."""

    partitions: int
    alpha: float = 0.5
    seed: int = 0

    name = "keyboard"

    def build_model(self) -> nn.Module:
        return NextCharacter()

    def example_inputs(self) -> tuple[Tensor, ...]:
        return (torch.zeros(1, LENGTH, dtype=torch.long),)

    def load(self, partition: int) -> Examples:
        mine = self._shares[partition]
        return Examples(inputs=self._text[mine, :-1], targets=self._text[mine, 1:])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, targets)

    def score(self, outputs: Tensor, targets: Tensor) -> float:
        return float((outputs.argmax(dim=1) == targets).float().mean())

    def evaluate(self, model: nn.Module) -> Evaluation:
        unseen = self._text[::HELD_OUT]
        with torch.inference_mode():
            outputs = model(unseen[:, :-1])
            right = outputs.argmax(dim=1) == unseen[:, 1:]
            return Evaluation(float(self.loss(outputs, unseen[:, 1:])), float(right.float().mean()))

    @cached_property
    def _stretches(self) -> tuple[Tensor, np.ndarray]:
        """Stretches of text, int64 [n, 33], and the number of the topic of each, [n]."""
        texts = [stretches_of(text) for text in topics.values()]
        return torch.from_numpy(np.concatenate(texts)), np.repeat(range(len(texts)), [len(t) for t in texts])

    @property
    def _text(self) -> Tensor:
        return self._stretches[0]

    @cached_property
    def _shares(self) -> list[np.ndarray]:
        """For each device the numbers of its stretches: topics are shared out unevenly, the more so the
        smaller alpha is."""
        topic = self._stretches[1]
        train = np.flatnonzero(np.arange(len(topic)) % HELD_OUT)
        rng = np.random.default_rng(self.seed)
        return [train[share] for share in dirichlet_partition(topic[train], self.partitions, self.alpha, rng)]


class PrivateKeyboard(Keyboard):
    """The same without test data on the server: what the model is worth, only the devices can say."""

    name = "private keyboard"
    evaluate = None


class NextCharacter(nn.Module):
    """Embedding, GRU, linear layer: 20,000 parameters. Narrow devices get fewer of the 64 hidden units."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(ALPHABET), 16)
        self.gru = nn.GRU(16, 64, batch_first=True)
        self.output = nn.Linear(64, len(ALPHABET))

    def forward(self, characters: Tensor) -> Tensor:
        """Characters int64 [n, length] to logits [n, alphabet, length]: classes come second."""
        hidden, _ = self.gru(self.embedding(characters))
        logits: Tensor = self.output(hidden)
        return logits.transpose(1, 2)


def stretches_of(text: str) -> np.ndarray:
    """A text as characters of the alphabet, int64 [n, 33]; what is not in it becomes a space."""
    number = {character: index for index, character in enumerate(ALPHABET)}
    codes = np.array([number.get(character, 0) for character in " ".join(text.lower().split())])
    whole = len(codes) // (LENGTH + 1)
    return codes[: whole * (LENGTH + 1)].reshape(whole, LENGTH + 1)
