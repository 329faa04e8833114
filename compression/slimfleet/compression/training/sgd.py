"""Stochastic gradient descent with momentum, as `torch.optim.SGD` computes it, bit for bit.

Any of torch's optimisers imports torch's compiler: 70 MB of memory, and as much time as torch itself takes to import.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd


class Sgd:
    """The optimiser of some parameters; one without a gradient stays as it is."""

    def __init__(self, parameters: Sequence[Tensor], learning_rate: float, momentum: float) -> None:
        self._parameters = parameters
        self._learning_rate, self._momentum = learning_rate, momentum
        self._velocities: list[Tensor | None] = [None] * len(parameters)

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    def step(self) -> None:
        """Move the parameters by their gradients."""
        moved = [number for number, each in enumerate(self._parameters) if each.grad is not None]
        velocities = [self._velocities[number] for number in moved]
        parameters = [self._parameters[number] for number in moved]
        gradients = [each.grad for each in parameters if each.grad is not None]
        with torch.no_grad():
            sgd(
                parameters, gradients, velocities, lr=self._learning_rate, momentum=self._momentum,
                weight_decay=0.0, dampening=0.0, nesterov=False, maximize=False,
            )  # fmt: skip
        for number, velocity in zip(moved, velocities, strict=True):
            self._velocities[number] = velocity

    def state_dict(self) -> dict[str, Any]:
        """The velocities by number of parameter, in the form of torch's optimisers."""
        state = {number: {"momentum_buffer": each} for number, each in enumerate(self._velocities)}
        return {"state": state, "param_groups": []}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        found = state_dict["state"]
        self._velocities = [
            found.get(number, {}).get("momentum_buffer") for number in range(len(self._parameters))
        ]
