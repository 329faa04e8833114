"""Norms that lost channels: the statistics go on counting those lost, as zeros."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


def counts_whole(layer: nn.Module) -> bool:
    """Whether `layer` normalises over all its channels at once, and can be replaced by a `FullNorm`."""
    if isinstance(layer, nn.GroupNorm):
        return layer.num_groups == 1 and layer.affine
    return isinstance(layer, nn.LayerNorm) and layer.weight is not None and len(layer.normalized_shape) == 1


class FullNorm(nn.Module):
    """Stands in for a layer norm, or a group norm of one group, that lost channels.

    Same parameters under the same names, same call. A norm of the channels left would compute with another mean and
    another variance than the full model in which the others are zero; this one computes with the same.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self._parameters.update(norm._parameters)
        self.eps = norm.eps
        self.training = norm.training
        self.full = norm.num_channels if isinstance(norm, nn.GroupNorm) else norm.normalized_shape[0]
        # In a tuple, so that it is no submodule: its parameters are here.
        self._norm = (norm,)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the norm's own."""
        own = {name: p for name, p in self._parameters.items() if p is not None}
        with _CountingAll(self.full):
            return functional_call(self._norm[0], own, args, kwargs)

    def extra_repr(self) -> str:
        """As shown in the model's description."""
        return f"{len(self.weight)} of {self.full}, eps={self.eps}"


class _CountingAll(TorchFunctionMode):
    """While entered, norms count `full` channels."""

    def __init__(self, full: int) -> None:
        super().__init__()
        self._full = full

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in (F.layer_norm, torch.layer_norm):
            return _layer_norm(self._full, *args, **kwargs)
        if function in (F.group_norm, torch.group_norm):
            return _group_norm(self._full, *args, **kwargs)
        return function(*args, **kwargs)


def _layer_norm(
    full: int,
    x: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    return _affine(_standardised(x, [-1], full, eps), weight, bias)


def _group_norm(
    full: int,
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    places = x[0, 0].numel()
    column = (-1, *[1] * (x.dim() - 2))
    y = _standardised(x, list(range(1, x.dim())), full * places, eps)
    return _affine(
        y,
        None if weight is None else weight.reshape(column),
        None if bias is None else bias.reshape(column),
    )


def _standardised(x: Tensor, dims: list[int], count: int, eps: float) -> Tensor:
    """`x` minus its mean over its standard deviation, both over `count` elements, of which those not in `x` are 0."""
    own = 1
    for dim in dims:
        own *= x.shape[dim]
    mean = x.sum(dims, keepdim=True) / count
    centred = x - mean
    variance = (centred.square().sum(dims, keepdim=True) + (count - own) * mean.square()) / count
    return centred * torch.rsqrt(variance + eps)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias
