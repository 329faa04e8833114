"""Vmapped model: several devices' copies of one model through `torch.func.vmap`, for layers that are not stacked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call, vmap

from slimfleet.client.cohort.layers import Own
from slimfleet.client.cohort.recurrent import written_out

__all__ = ["Vmapped"]


@dataclass(frozen=True, slots=True)
class Vmapped:
    """A model of any layers that torch has batching rules for. Anything random raises: it is the loop's."""

    model: nn.Module
    loss: Callable[[Any, Tensor], Tensor]
    """Of one device's outputs and targets."""

    def losses(self, state: Own, inputs: Sequence[Tensor], targets: Tensor) -> Tensor:
        """As of `Stacked`; the model may take several inputs."""
        with written_out(self.model):
            losses: Tensor = vmap(self.loss_of_one, randomness="error")(dict(state), tuple(inputs), targets)
        return losses

    def loss_of_one(self, state: dict[str, Tensor], inputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        """Loss of one device; running statistics in `state` are updated."""
        return self.loss(functional_call(self.model, state, inputs), targets)
