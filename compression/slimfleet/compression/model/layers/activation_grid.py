"""Quantised activations: the inputs of a layer rounded to a grid, as an integer runtime would see them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ActivationGrid"]


class ActivationGrid(nn.Module):
    """Rounds floats to `levels` = 2**bits values `(q - zero) * step` (Jacob et al. 2018, arXiv 1712.05877, eq. 1).

    `step` and `zero` are buffers, float32 0-d. Gradients pass straight through inside the range. It is a child of the
    layer whose first input it rounds: `attach`.
    """

    step: Tensor
    zero: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.register_buffer("step", torch.ones(()))
        self.register_buffer("zero", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """`x`, rounded; integers and bools as they are."""
        if not x.is_floating_point():
            return x
        rounded = ((x / self.step).round() + self.zero).clamp(0, 2**self.bits - 1)
        return _StraightThrough.apply(x, (rounded - self.zero) * self.step)  # type: ignore[no-any-return, no-untyped-call]

    def attach(self, layer: nn.Module, name: str) -> None:
        """Become the child `name` of `layer`, and round its first input from now on."""
        layer.add_module(name, self)
        layer.register_forward_pre_hook(_Round(name))


class _Round:
    """The hook: it looks the grid up, so that a copy of the layer uses its own."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        first, *rest = inputs
        return (layer.get_submodule(self.name)(first), *rest)


class _StraightThrough(torch.autograd.Function):
    """The rounded values forward; backward the gradient, where rounding did not clip."""

    @staticmethod
    def forward(context: Any, x: Tensor, rounded: Tensor) -> Tensor:
        """`rounded`."""
        context.save_for_backward(x, rounded)
        return rounded

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """`gradient`, zero outside the range of the grid."""
        x, rounded = context.saved_tensors
        low, high = rounded.min(), rounded.max()
        return gradient * ((x >= low) & (x <= high)), None
