"""The federation that every method is measured in: one place for every number that decides a result."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """FedAvg with a fixed number of local steps: no server momentum and no proximal term."""

    clients: int = 10
    per_round: int = 5
    alpha: float = 0.3
    """Of the Dirichlet prior over each class's shares."""
    rounds: int = 100
    local_steps: int = 20
    batch_size: int = 32
    learning_rate: float = 0.05
    last_share: float = 0.1
    """What a half cosine leaves of the learning rate in the last round."""
    momentum: float = 0.9
    """Of local SGD; it starts from zero in every round."""
    newest_share: float = 0.1
    """Of the newest global model in the running mean that is measured: single ones swing under label skew."""
    measured_every: int = 5
    """Rounds from one measurement to the next; the last round is always measured."""

    def rate(self, round_number: int) -> float:
        """Learning rate of a round (from 1)."""
        passed = (round_number - 1) / max(self.rounds - 1, 1)
        cosine = (1 + math.cos(math.pi * passed)) / 2
        return self.learning_rate * (self.last_share + (1 - self.last_share) * cosine)

    def measures(self, round_number: int) -> bool:
        """Whether accuracy is measured after this round."""
        return round_number % self.measured_every == 0 or round_number == self.rounds
