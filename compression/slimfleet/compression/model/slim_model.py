"""Slim model: a model on its way through a recipe, with what its weights obey."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, replace

from torch import nn

from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.constraints import Constraints

__all__ = ["SlimModel", "weights_of"]


@dataclass(frozen=True)
class SlimModel:
    """A model, and what later steps must keep to. Techniques return a new one and leave theirs as it is."""

    model: nn.Module
    constraints: Constraints = field(default_factory=dict)

    def copy(self) -> SlimModel:
        """A copy whose weights may change."""
        return replace(self, model=deepcopy(self.model))

    def constrained(self, more: Constraints) -> SlimModel:
        """A copy whose weights obey these constraints too; one on the same tensor takes the place of the former."""
        new = replace(self.copy(), constraints={**self.constraints, **more})
        for name, weight in new.model.named_parameters():
            if name in more:
                weight.data.copy_(more[name].obeyed(weight.detach()))
        return new

    def unconstrained(self, technique: str) -> nn.Module:
        """The model of a technique that changes shapes. Raises BadInput where weights obey something already."""
        if self.constraints:
            raise BadInput(
                f"{technique} changes the layers, but the weights of {next(iter(self.constraints))!r} are "
                f"masked, shared or quantised already: put it before them in the recipe"
            )
        return self.model


def weights_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that make a model large, by name: those of at least two dimensions. Biases and norms are few, and
    fragile."""
    return {name: p for name, p in model.named_parameters() if p.dim() >= 2 and p.numel()}
