"""Importance of weights: what is lost with a weight, as an estimate that costs a pass over data or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.slim_model import SlimModel, weights_of

__all__ = ["Importance", "importance_of"]

Importance = Literal["magnitude", "taylor", "movement", "random"]

BATCHES, BATCH = 16, 64
"""Examples that gradients are averaged over."""


def importance_of(kind: Importance, slim: SlimModel, central: CentralTask) -> dict[str, Tensor]:
    """A score for every weight of a tensor of two or more dimensions, by name; the higher, the more is lost with it.

    - `magnitude`: |w| (Han et al. 2015, arXiv 1506.02626).
    - `taylor`: |w * dL/dw|, the first-order change of the loss (Molchanov et al. 2019, arXiv 1906.10771, eq. 8).
    - `movement`: -w * dL/dw, whether training moves the weight away from zero (Sanh et al. 2020, arXiv 2005.07683,
      eq. 3), with gradients of the weights as they are.
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
    return {name: products.abs().mean(0) for name, products in _products(slim, central).items()}


def _movement(slim: SlimModel, central: CentralTask) -> dict[str, Tensor]:
    return {name: -products.mean(0) for name, products in _products(slim, central).items()}


_KINDS: Mapping[Importance, Callable[[SlimModel, CentralTask], dict[str, Tensor]]] = MappingProxyType(
    {"magnitude": _magnitude, "taylor": _taylor, "movement": _movement, "random": _random}
)


def _products(slim: SlimModel, central: CentralTask) -> dict[str, Tensor]:
    """w * dL/dw of some batches, [batches, *shape]."""
    model = slim.copy().model.eval()
    weights = weights_of(model)
    order = torch.randperm(len(central.training), generator=torch.Generator().manual_seed(central.seed))
    products: dict[str, list[Tensor]] = {name: [] for name in weights}
    for index in torch.split(order, BATCH)[:BATCHES]:
        batch = central.training.take(index)
        model.zero_grad(set_to_none=True)
        central.loss(model(*batch.arguments), batch.targets).backward()  # type: ignore[no-untyped-call]
        for name, weight in weights.items():
            gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
            products[name].append(weight.detach() * gradient)
    return {name: torch.stack(each) for name, each in products.items()}
