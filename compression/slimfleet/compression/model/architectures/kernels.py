"""Smaller kernels: a convolution without the outer ring of its taps, whose output keeps its shape."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["SMALLEST", "crop", "cropped", "most_rings"]

SMALLEST = 3
"""Taps in each dimension that stay."""


def most_rings(layer: nn.Module) -> int:
    """How many rings a layer can lose; 0 for all but convolutions with large kernels and enough padding of zeros."""
    if (
        not isinstance(layer, nn.Conv1d | nn.Conv2d)
        or layer.padding_mode != "zeros"
        or layer.padding == "valid"
    ):
        return 0
    spare = [(size - SMALLEST) // 2 for size in layer.kernel_size]
    if not isinstance(layer.padding, str):
        spare += [around // gap for around, gap in zip(layer.padding, layer.dilation, strict=True)]
    elif any(size % 2 == 0 for size in layer.kernel_size):
        return 0  # `same` pads an even kernel on one side more
    return max(min(spare), 0)


def cropped(weight: Tensor, rings: int) -> Tensor:
    """The middle of a weight [outputs, inputs, *kernel]."""
    for dim in range(2, weight.dim()):
        weight = weight.narrow(dim, rings, weight.shape[dim] - 2 * rings)
    return weight


def crop(layer: Any, rings: int) -> None:
    """Take rings off a convolution, in place."""
    layer.weight = nn.Parameter(cropped(layer.weight.detach(), rings).clone(), layer.weight.requires_grad)
    layer.kernel_size = tuple(layer.weight.shape[2:])
    if not isinstance(layer.padding, str):
        layer.padding = tuple(
            around - rings * gap for around, gap in zip(layer.padding, layer.dilation, strict=True)
        )
    gaps = [gap for gap in reversed(layer.dilation) for _ in range(2)]
    layer._reversed_padding_repeated_twice = [
        side - rings * gap for side, gap in zip(layer._reversed_padding_repeated_twice, gaps, strict=True)
    ]
