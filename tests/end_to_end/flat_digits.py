"""Handwritten digits for a network of linear layers, which a device in any language can train."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from slimfleet.client.tasks import Digits
from slimfleet.compression import Evaluation, Examples


class FlatDigits(Digits):
    """Digits of scikit-learn as 64 numbers each."""

    @property
    def name(self) -> str:
        """`flat digits`."""
        return "flat digits"

    def build_model(self) -> nn.Module:
        """A network of 2,410 parameters, freshly initialised from torch's generator."""
        return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        """One float32 tensor [1, 64]."""
        return (torch.zeros(1, 64),)

    def load(self, partition: int) -> Examples:
        """Inputs float32 [n, 64] and targets int64 [n] of one device."""
        examples = super().load(partition)
        return replace(examples, inputs=examples.inputs.flatten(1))

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Loss and accuracy on the held-out fifth."""
        return super().evaluate(nn.Sequential(nn.Flatten(), model))
