"""Constraints on weights that every later step of training keeps to: a mask, a grid, shared values.

A model always holds weights that obey, in parameters of torch's own, so that any layer may have them, recurrent ones
too. Where rounding would swallow small steps, the optimiser moves a copy that does not obey (`Constrained`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

__all__ = ["Constrained", "Constraint", "Constraints", "Grid", "Mask", "Shared"]

LEAST_STEP = 0.1
"""A learned step shrinks to no less than this share of what it began with: momentum that goes on and on would otherwise
bring the step of a row that is seldom trained to zero."""


class Constraint(Protocol):
    """What the weights of one tensor obey."""

    @property
    def rounds(self) -> bool:
        """Whether the optimiser moves a copy of the weights instead: small changes may have no effect, or what is
        hidden may come back."""
        ...

    def obeyed(self, weight: Tensor) -> Tensor:
        """The values, of the same shape and dtype, that obey and are next to `weight`."""
        ...

    def gradient(self, gradient: Tensor, weight: Tensor) -> Tensor:
        """The gradient that moves `weight` and keeps to the constraint; `gradient` is that of the obeyed values."""
        ...


Constraints = Mapping[str, Constraint]
"""Name of a parameter -> what it obeys."""


@dataclass(frozen=True, eq=False)
class Mask:
    """Keeps weights at zero."""

    free: Tensor
    """bool, the shape of the weight: true where it may differ from zero."""
    rounds: bool = False
    """Whether weights that are not free are hidden, and come back as they were where a later mask frees them."""

    def obeyed(self, weight: Tensor) -> Tensor:
        """The weight, zero where it is not free."""
        return torch.where(self.free, weight, 0.0)  # not a product, which would give negative zeros

    def gradient(self, gradient: Tensor, weight: Tensor) -> Tensor:
        """No gradient where the weight is not free."""
        return gradient * self.free


@dataclass(frozen=True, eq=False)
class Grid:
    """Rounds weights to multiples of a step.

    Gradients pass straight through inside the range of the grid and are zero where they would lead further out of it
    (Bengio, Léonard and Courville 2013, arXiv 1308.3432).
    """

    step: Tensor
    """float32, of a shape that broadcasts to the weight: 0-d, or [c, 1, 1, 1] for one step a channel."""
    low: Tensor
    high: Tensor
    """Smallest and largest multiple, whole numbers in float32, of the shape of `step`."""
    free: Tensor | None = None
    """As in `Mask`; None where all weights are free."""
    learned: bool = False
    """Whether training moves the step too."""
    rounds = True

    @property
    def bits(self) -> int:
        """Bits of a multiple."""
        return int((self.high - self.low).max()).bit_length()

    def levels(self, weight: Tensor) -> Tensor:
        """The multiples, whole numbers in float32."""
        levels = (weight / self.step).round().clamp(self.low, self.high)
        return levels if self.free is None else levels * self.free

    def obeyed(self, weight: Tensor) -> Tensor:
        """The next points of the grid."""
        return self.levels(weight) * self.step

    def gradient(self, gradient: Tensor, weight: Tensor) -> Tensor:
        """Straight through."""
        scaled = weight / self.step
        outwards = ((scaled > self.high) & (gradient < 0)) | ((scaled < self.low) & (gradient > 0))
        inside = gradient * ~outwards
        return inside if self.free is None else inside * self.free

    def step_gradient(self, gradient: Tensor, weight: Tensor) -> Tensor:
        """The gradient of the step, of its shape; scaled so that steps and weights change at one pace (LSQ, Esser et
        al. 2020, arXiv 1902.08153, eq. 3 and section 2.2)."""
        scaled = weight / self.step
        inside = (scaled > self.low) & (scaled < self.high)
        levels = self.levels(weight)
        slope = torch.where(inside, levels - scaled, levels)
        if self.free is not None:
            slope = slope * self.free
        weights = weight.numel() / self.step.numel()
        return (gradient * slope).sum_to_size(self.step.shape) / (weights * self.high.clamp(min=1)).sqrt()


@dataclass(frozen=True, eq=False)
class Shared:
    """Shares values among weights: those of one place are equal, and their gradients add up (Han, Mao and Dally 2016,
    arXiv 1510.00149, section 3).
    """

    places: Tensor
    """int64, the shape of the weight: the value that each has. Place 0 is the value zero, and stays so."""
    rounds = False

    def values(self, weight: Tensor) -> Tensor:
        """The value of each place, float32 [places]: the mean of its weights."""
        count = int(self.places.max()) + 1 if self.places.numel() else 1
        sums = torch.zeros(count, dtype=torch.float64).index_add_(
            0, self.places.flatten(), weight.flatten().double()
        )
        members = torch.bincount(self.places.flatten(), minlength=count).clamp(min=1)
        means = (sums / members).float()
        means[0] = 0.0
        return means

    def obeyed(self, weight: Tensor) -> Tensor:
        """The mean of each place, for each of its weights."""
        return self.values(weight)[self.places].to(weight.dtype)

    def gradient(self, gradient: Tensor, weight: Tensor) -> Tensor:
        """The sum over each place, for each of its weights."""
        count = int(self.places.max()) + 1 if self.places.numel() else 1
        sums = gradient.new_zeros(count).index_add_(0, self.places.flatten(), gradient.flatten())
        sums[0] = 0.0
        return sums[self.places]


class Constrained:
    """Takes the steps of an optimiser over a model whose weights obey constraints.

    Between `before_step` and `after_step` the parameters hold what the optimiser moves.
    """

    def __init__(self, model: nn.Module, constraints: Constraints) -> None:
        self._parameters = dict(model.named_parameters())
        self._moved: dict[str, Tensor] = {}
        self.constraints: dict[str, Constraint] = {}
        """What the weights obey now: learned steps are as far as they have come."""
        self.steps: dict[str, nn.Parameter] = {}
        """Steps of grids that training moves, by the name of the weight: more for the optimiser to move."""
        self._least: dict[str, Tensor] = {}
        """What these do not go below."""
        self.constrain(constraints)

    @property
    def moved(self) -> dict[str, Tensor]:
        """What the optimiser moves, by the name of the parameter."""
        return {name: self._moved.get(name, p.detach()) for name, p in self._parameters.items()}

    def constrain(self, more: Constraints) -> None:
        """Let the weights obey these constraints too; one on the same tensor takes the place of the former. What the
        optimiser moves in place of rounded weights goes on from where it is."""
        for name, constraint in more.items():
            if constraint.rounds:
                self._moved.setdefault(name, self._parameters[name].detach().clone())
            else:
                self._moved.pop(name, None)
            self.steps.pop(name, None)
            if isinstance(constraint, Grid) and constraint.learned:
                self.steps[name] = nn.Parameter(constraint.step.clone())
                self._least[name] = constraint.step * LEAST_STEP
            self.constraints[name] = constraint
        self._obey()

    def before_step(self) -> None:
        """Turn gradients into those that the constraints allow."""
        for name, constraint in self.constraints.items():
            parameter = self._parameters[name]
            if name in self._moved:
                parameter.data.copy_(self._moved[name])
            if parameter.grad is None:
                continue
            if name in self.steps and isinstance(constraint, Grid):
                self.steps[name].grad = constraint.step_gradient(parameter.grad, parameter.detach())
            parameter.grad = constraint.gradient(parameter.grad, parameter.detach())

    def after_step(self) -> None:
        """Let the weights obey again."""
        for name, moved in self._moved.items():
            moved.copy_(self._parameters[name].detach())
        for name, step in self.steps.items():
            grid = self.constraints[name]
            assert isinstance(grid, Grid)
            step.data.copy_(torch.maximum(step.detach(), self._least[name]))
            self.constraints[name] = replace(grid, step=step.detach().clone())
        self._obey()

    def _obey(self) -> None:
        for name, constraint in self.constraints.items():
            parameter = self._parameters[name]
            parameter.data.copy_(constraint.obeyed(self._moved.get(name, parameter.detach())))
