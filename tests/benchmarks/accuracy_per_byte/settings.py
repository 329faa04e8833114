"""The federation that every method is measured in: one place for every number that decides a result."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Plain FedAvg (McMahan et al. 2017, algorithm 1): no server momentum and no proximal term."""

    clients: int = 10
    per_round: int = 5
    alpha: float = 0.3
    """Of the Dirichlet prior over each class's shares."""
    rounds: int = 40
    local_epochs: int = 1
    batch_size: int = 20
    learning_rate: float = 0.02
    rate_decay: float = 0.97
    """Factor on the learning rate from one round to the next."""
    momentum: float = 0.9
    """Of local SGD; it starts from zero in every round."""
    parts: int = 6
    """The training images are cut into this many even parts, and one of them is what all clients together hold."""


LAST_ROUNDS = 5
"""Accuracy is the mean over the global models of this many last rounds: single ones swing under label skew."""
