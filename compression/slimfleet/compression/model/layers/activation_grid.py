"""Quantised activations: the inputs of a layer rounded to a grid, as an integer runtime would see them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from slimfleet.compression.pruning.attention import SlimAttention

__all__ = ["ActivationGrid", "rounded_inputs"]


class ActivationGrid(nn.Module):
    """Rounds floats to `levels` = 2**bits values `(q - zero) * step` (Jacob et al. 2018, arXiv 1712.05877, eq. 1).

    `step` and `zero` are buffers, float32 0-d. Gradients pass straight through inside the range of the grid and are
    zero outside it. It is a child of the layer whose first input it rounds, or, of attention, the query, the keys and
    the values: `attach`.
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
        levels = _StraightThrough.apply(x / self.step) + self.zero  # type: ignore[no-untyped-call]
        rounded: Tensor = (levels.clamp(0, 2**self.bits - 1) - self.zero) * self.step
        return rounded

    def attach(self, layer: nn.Module, name: str) -> None:
        """Become the child `name` of `layer`, and round its inputs from now on."""
        layer.add_module(name, self)
        layer.register_forward_pre_hook(_Round(name))


def rounded_inputs(layer: nn.Module, inputs: tuple[Any, ...]) -> list[Tensor]:
    """Those of the positional inputs of `layer` that a grid rounds."""
    count = 3 if isinstance(layer, nn.MultiheadAttention | SlimAttention) else 1
    return [x for x in inputs[:count] if isinstance(x, Tensor) and x.is_floating_point()]


class _Round:
    """The hook: it looks the grid up, so that a copy of the layer uses its own."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        grid = layer.get_submodule(self.name)
        # Self-attention gets one tensor three times, and is faster where it still does.
        rounded = {id(x): grid(x) for x in {id(x): x for x in rounded_inputs(layer, inputs)}.values()}
        return tuple(rounded.get(id(x), x) for x in inputs)


class _StraightThrough(torch.autograd.Function):
    """Whole numbers forward; backward the gradient as it is."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        """`x`, rounded."""
        return x.round()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        """`gradient`."""
        return gradient
