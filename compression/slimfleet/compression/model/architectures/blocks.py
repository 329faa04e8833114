"""Blocks that a model can go without: those that keep the shape of their input, such as residual blocks and
Transformer layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["blocks_of"]


def blocks_of(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> list[str]:
    """Paths of the blocks, in the order of the model: the smallest that hold no more than one inside themselves.

    A block has two weights or more, gets one tensor first, and returns one of the same shape and dtype.
    """
    model = deepcopy(model).eval()
    kept: dict[nn.Module, bool] = {}

    def compare(layer: nn.Module, args: tuple[Any, ...], outputs: Any) -> None:
        match args, outputs:
            case (Tensor() as given, *_), Tensor():
                same = (given.shape, given.dtype) == (outputs.shape, outputs.dtype)
            case _:
                same = False
        kept[layer] = kept.get(layer, True) and same and len(_weights(layer)) > 1

    for layer in model.modules():
        layer.register_forward_hook(compare)
    with torch.no_grad():
        model(*example_inputs)
    return list(_chosen(model, "", lambda layer: kept.get(layer, False)))


def _weights(layer: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in layer.parameters() if parameter.dim() >= 2]


def _chosen(layer: nn.Module, path: str, keeps_shape: Callable[[nn.Module], bool]) -> Iterator[str]:
    inside = [
        found
        for name, child in layer.named_children()
        for found in _chosen(child, f"{path}.{name}" if path else name, keeps_shape)
    ]
    # The branch of a residual block is one too; a stage holds several.
    yield from [path] if path and keeps_shape(layer) and len(inside) <= 1 else inside
