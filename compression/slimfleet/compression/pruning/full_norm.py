"""Norms that lost channels: what they average goes on counting those lost, as zeros."""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

_BATCH_NORM = signature(F.batch_norm)

OWN_SIZES = frozenset(
    f"torch.nn.modules.{kind}"
    for kind in (
        "conv",
        "linear",
        "batchnorm",
        "instancenorm",
        "normalization",
        "rnn",
        "activation",
        "sparse",
        "pooling",
        "padding",
        "fold",
        "pixelshuffle",
        "channelshuffle",
        "upsampling",
        "dropout",
    )
)
"""Where torch's layers come from whose integers are known: sizes that `shrink` sets, and numbers that stay."""


def counts_whole(layer: nn.Module) -> bool:
    """Whether `layer` may average over all its channels at once, since a `FullNorm` can stand in for it.

    So do layer norms, RMS norms, group norms of one group, and norms written by hand: layers with parameters and
    without layers inside.
    """
    if isinstance(layer, nn.GroupNorm):
        return layer.num_groups == 1 and layer.affine
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        return layer.weight is not None and len(layer.normalized_shape) == 1
    if any(kind.__module__ in OWN_SIZES for kind in type(layer).__mro__):
        return False
    if isinstance(layer, nn.ParameterList | nn.ParameterDict):
        return False
    return not any(layer.children()) and any(True for _ in layer.parameters())


def standardises(layer: nn.Module) -> bool:
    """Whether `layer` is a convolution whose own forward pass norms the kernel over its inputs.

    A `FullNorm` can stand in for it. Weight standardisation, Qiao et al. 2019, as NFNets and BiT ResNets have it.
    """
    forward = getattr(type(layer).forward, "__code__", None)
    return isinstance(layer, _ConvNd) and forward is not None and "batch_norm" in forward.co_names


class FullNorm(nn.Module):
    """Stands in for a norm, or a convolution that norms its kernel, that lost channels.

    Same parameters under the same names, same call. A norm of the channels left would compute with another mean and
    another variance than the full model in which the others are zero; this one computes with the same.
    """

    def __init__(self, norm: nn.Module, kept: int, full: int) -> None:
        super().__init__()
        self._parameters.update(norm._parameters)
        self._buffers.update(norm._buffers)
        self._non_persistent_buffers_set.update(norm._non_persistent_buffers_set)
        self.training = norm.training
        self.kept = kept
        self.full = full
        # In a tuple, so that it is no submodule: its tensors are here.
        self._norm = (norm,)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the norm's own."""
        own: dict[str, Tensor] = {
            n: t for n, t in (*self._parameters.items(), *self._buffers.items()) if t is not None
        }
        self._norm[0].training = self.training
        with _CountingAll(self.kept, self.full):
            return functional_call(self._norm[0], own, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        """What the layers around read of the norm, such as its `eps`."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_"):
                raise
            return getattr(self._norm[0], name)

    def extra_repr(self) -> str:
        """As shown in the model's description."""
        return f"{self.kept} of {self.full} channels, {self._norm[0]}"


class _CountingAll(TorchFunctionMode):
    """While entered, averages over `kept` channels are those over `full`."""

    def __init__(self, kept: int, full: int) -> None:
        super().__init__()
        self._kept = kept
        self._full = full

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in (F.layer_norm, torch.layer_norm):
            return _layer_norm(self._full, *args, **kwargs)
        if function in (F.rms_norm, torch.rms_norm):
            return _rms_norm(self._full, *args, **kwargs)
        if function is F.batch_norm:
            return _kernel_norm(self._kept, self._full, *args, **kwargs)
        if function in (F.group_norm, torch.group_norm):
            return _group_norm(self._full, *args, **kwargs)
        if function in (torch.mean, Tensor.mean) and self._is_over_channels(*args, **kwargs):
            return function(*args, **kwargs) * (self._kept / self._full)
        return function(*args, **kwargs)

    def _is_over_channels(self, x: Tensor, dim: Any = None, *_: Any, **__: Any) -> bool:
        dims = [dim] if isinstance(dim, int) else list(dim or ())
        return len(dims) == 1 and x.shape[dims[0]] == self._kept


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


def _rms_norm(
    full: int, x: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    mean = x.square().sum(-1, keepdim=True) / full
    return _affine(x * torch.rsqrt(mean + (torch.finfo(x.dtype).eps if eps is None else eps)), weight, None)


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


def _kernel_norm(kept: int, full: int, *args: Any, **kwargs: Any) -> Tensor:
    """As `batch_norm` of a kernel of shape (1, outputs, inputs times places)."""
    given = _BATCH_NORM.bind(*args, **kwargs)
    given.apply_defaults()
    kernel, weight, bias = (given.arguments[name] for name in ("input", "weight", "bias"))
    y = _standardised(kernel, [2], kernel.shape[2] * full // kept, given.arguments["eps"])
    return _affine(y, None if weight is None else weight[:, None], None if bias is None else bias[:, None])


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
