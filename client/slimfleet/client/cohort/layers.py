"""Layers that can be stacked: how each computes for several devices at once.

A layer takes its input in one of the layouts of `layouts.py`. One that treats every element alike takes either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["LAYERS", "Layer", "Own"]

Own = Mapping[str, Tensor]
"""The tensors of one layer of all devices: name -> [devices, *shape]. Buffers are updated in place."""

FEW = 16
"""A product of so few outputs is faster the other way round: it would fill a vector register only in part."""

Layout = Literal["wide", "deep", "either"]
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layer:
    """How a kind of layer is stacked."""

    layout: Layout
    fits: Callable[[Any, Shape, Shape], bool]
    """Whether a layer, for one device's input and output of these shapes, is one that `compute` can do."""
    compute: Callable[[Any, Own, Tensor, int], Tensor]
    """The output, in the layout of the input, of a layer with the tensors of so many devices."""


def _convolution(convolve: Callable[..., Tensor], dimensions: int) -> Layer:
    def fits(layer: Any, given: Shape, made: Shape) -> bool:
        return layer.padding_mode == "zeros" and len(given) == len(made) == dimensions

    def compute(layer: Any, own: Own, inputs: Tensor, devices: int) -> Tensor:
        bias = own["bias"].flatten() if "bias" in own else None
        weight, groups = own["weight"].flatten(0, 1), layer.groups * devices
        return convolve(inputs, weight, bias, layer.stride, layer.padding, layer.dilation, groups)

    return Layer("wide", fits, compute)


class _Product(torch.autograd.Function):
    """Inputs [devices, batch, in], weight [devices, out, in] and bias [devices, out] to [devices, batch, out]."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        if weight.shape[1] < FEW:
            across = inputs.transpose(1, 2)
            product = weight.bmm(across) if bias is None else torch.baddbmm(bias.unsqueeze(2), weight, across)
            return product.transpose(1, 2)
        across = weight.transpose(1, 2)
        return inputs.bmm(across) if bias is None else torch.baddbmm(bias.unsqueeze(1), inputs, across)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        back, move, shift = ctx.needs_input_grad
        return (
            gradient.bmm(weight) if back else None,
            # Autograd takes the product of inputs and gradient, and turns it: up to four times as slow.
            gradient.transpose(1, 2).bmm(inputs) if move else None,
            gradient.sum(1) if shift else None,
        )


def _linear(layer: Any, own: Own, inputs: Tensor, devices: int) -> Tensor:
    outputs: Tensor = _Product.apply(inputs, own["weight"], own.get("bias"))  # type: ignore[no-untyped-call]
    return outputs


def _batch_norm(layer: Any, own: Own, inputs: Tensor, devices: int) -> Tensor:
    mean, variance, weight, bias = (
        own[name].view(-1) if name in own else None
        for name in ("running_mean", "running_var", "weight", "bias")
    )
    if layer.training and "num_batches_tracked" in own:
        own["num_batches_tracked"].add_(1)
    by_batch = layer.training or mean is None
    return functional.batch_norm(inputs, mean, variance, weight, bias, by_batch, layer.momentum, layer.eps)


def _group_norm(layer: Any, own: Own, inputs: Tensor, devices: int) -> Tensor:
    weight, bias = (own[name].flatten() if name in own else None for name in ("weight", "bias"))
    return functional.group_norm(inputs, layer.num_groups * devices, weight, bias, layer.eps)


def _layer_norm(layer: Any, own: Own, inputs: Tensor, devices: int) -> Tensor:
    normalised = functional.layer_norm(inputs, layer.normalized_shape, eps=layer.eps)
    if "weight" in own:
        normalised = normalised * own["weight"].unsqueeze(1)
    return normalised + own["bias"].unsqueeze(1) if "bias" in own else normalised


def _alone(layer: Any, own: Own, inputs: Tensor, devices: int) -> Tensor:
    output: Tensor = layer(inputs)
    return output


_POOL = Layer("wide", lambda layer, given, made: len(given) > 2 and len(made) == len(given), _alone)
_ALIKE = Layer("either", lambda layer, given, made: True, _alone)

LAYERS: Mapping[type[nn.Module], Layer] = MappingProxyType(
    {
        nn.Conv1d: _convolution(functional.conv1d, 3),
        nn.Conv2d: _convolution(functional.conv2d, 4),
        nn.Linear: Layer("deep", lambda layer, given, made: len(given) == 2, _linear),
        **dict.fromkeys(
            (nn.BatchNorm1d, nn.BatchNorm2d),
            # Without a momentum the share of a batch depends on how many a device has had.
            Layer("wide", lambda layer, given, made: layer.momentum is not None, _batch_norm),
        ),
        nn.GroupNorm: Layer("wide", lambda layer, given, made: True, _group_norm),
        nn.LayerNorm: Layer("deep", lambda layer, given, made: len(given) == 2, _layer_norm),
        **dict.fromkeys(
            (
                *(nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d),
                *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d),
            ),
            _POOL,
        ),
        **dict.fromkeys(
            (
                *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Hardswish, nn.Hardtanh),
                *(nn.Tanh, nn.Sigmoid, nn.Identity),
            ),
            _ALIKE,
        ),
    }
)
"""By the exact type: a subclass may compute anything."""
