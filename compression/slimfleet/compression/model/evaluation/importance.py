"""Importance of weights: what is lost with a weight, as an estimate that costs a pass over data or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn

from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.slim_model import SlimModel, weights_of

__all__ = ["Importance", "Movement", "importance_of"]

Importance = Literal["magnitude", "taylor", "movement", "random"]

BATCHES, BATCH = 16, 64
"""Examples that gradients are averaged over."""


def importance_of(kind: Importance, slim: SlimModel, central: CentralTask) -> dict[str, Tensor]:
    """A score for every weight of a tensor of two or more dimensions, by name; the higher, the more is lost with it.

    - `magnitude`: |w| (Han et al. 2015, arXiv 1506.02626).
    - `taylor`: |w * dL/dw|, the first-order change of the loss (Molchanov et al. 2019, arXiv 1906.10771, eq. 8).
    - `movement`: -w * dL/dw, whether training moves the weight away from zero (Sanh et al. 2020, arXiv 2005.07683,
      eq. 3), with gradients of the weights as they are; over the steps of training see `Movement`.
    - `random`: what any other must beat.
    """
    return _KINDS[kind](slim, central)


def _magnitude(slim: SlimModel, central: CentralTask) -> dict[str, Tensor]:
    return {name: weight.detach().abs() for name, weight in weights_of(slim.model).items()}


def _random(slim: SlimModel, central: CentralTask) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(central.seed)
    return {
        name: torch.rand(weight.shape, generator=generator) for name, weight in weights_of(slim.model).items()
    }


def _taylor(slim: SlimModel, central: CentralTask) -> dict[str, Tensor]:
    return _mean_product(slim, central, torch.abs)


def _movement(slim: SlimModel, central: CentralTask) -> dict[str, Tensor]:
    return _mean_product(slim, central, torch.neg)


_KINDS: Mapping[Importance, Callable[[SlimModel, CentralTask], dict[str, Tensor]]] = MappingProxyType(
    {"magnitude": _magnitude, "taylor": _taylor, "movement": _movement, "random": _random}
)


def _mean_product(slim: SlimModel, central: CentralTask, of: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """The mean of `of(w * dL/dw)` over some batches."""
    model = slim.copy().model.eval()
    weights = weights_of(model)
    order = torch.randperm(len(central.training), generator=torch.Generator().manual_seed(central.seed))
    batches = torch.split(order, BATCH)[:BATCHES]
    means = {name: torch.zeros_like(weight, requires_grad=False) for name, weight in weights.items()}
    for index in batches:
        batch = central.training.take(index)
        model.zero_grad(set_to_none=True)
        central.loss(model(*batch.arguments), batch.targets).backward()  # type: ignore[no-untyped-call]
        for name, weight in weights.items():
            if weight.grad is not None:
                means[name] += of(weight.detach() * weight.grad) / len(batches)
    return means


class Movement:
    """Movement importance over the steps of training: the sum of -w * dL/dw (Sanh et al. 2020, arXiv 2005.07683,
    section 4). A `Watch` of the tuner.

    The weights are those that masks hide, too: one comes back where training would move it away from zero again.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def __call__(self, model: nn.Module, moved: Mapping[str, Tensor]) -> None:
        """Add what this step of training moves."""
        for name, weight in weights_of(model).items():
            if weight.grad is None:
                continue
            product = moved[name] * weight.grad
            self._sums[name] = self._sums[name] - product if name in self._sums else -product

    def scores(self, model: nn.Module) -> dict[str, Tensor]:
        """As `importance_of`; zero where no gradient was seen."""
        return {name: self._sums.get(name, torch.zeros_like(w)) for name, w in weights_of(model).items()}
