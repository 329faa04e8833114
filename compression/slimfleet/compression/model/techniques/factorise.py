"""Low rank: a linear layer or a convolution becomes two thinner ones, closest to it on the inputs that it gets.

The weight W, outputs by inputs, becomes U V of rank r. What counts is the error of the outputs: with S the second
moments of the inputs, U V is the best approximation of W S^(1/2), times S^(-1/2) (data-aware SVD: Zhang et al. 2015,
arXiv 1505.06798, section 2.2; Wang et al. 2024, arXiv 2403.07378). For a convolution the inputs are its patches, V is
a convolution with r outputs, and U mixes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt, Le
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from slimfleet.compression.model.architectures.fitting import Call
from slimfleet.compression.model.architectures.replacing import replace_layers
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.technique import TechniqueReport
from slimfleet.compression.model.training.tuning import Tuning
from slimfleet.compression.pruning.nested import tensors_in

__all__ = ["Factorise", "factorise"]

MOST_INPUTS = 3000
"""Inputs of a layer up to which their second moments are taken, a matrix of that size squared."""

RIDGE = 1e-4
"""Of the mean second moment, added to all: an input that training examples never use still gets its weight."""

MOST_ROWS = 2**15
"""Patches that the second moments of a convolution are taken from in one call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Factorise:
    """Settings of `factorise`."""

    by: Literal["energy", "cost"] = "energy"
    keep: Annotated[float, Gt(0), Le(1)] = 0.95
    """By `energy`, the share of each layer's squared outputs that its rank explains; by `cost`, the share of each
    layer's weights that is left."""
    worst_fit: Annotated[float, Gt(0)] = 0.3
    """Squared error of a new layer, as a share of the variance of the old one's outputs, above which the old one
    stays."""
    tuning: Tuning = field(default_factory=lambda: Tuning(soft_labels=0.7))


def factorise(
    slim: SlimModel, central: CentralTask, settings: Factorise
) -> tuple[SlimModel, TechniqueReport]:
    """Replace `nn.Linear`, `nn.Conv1d` and `nn.Conv2d` by two layers each, where these have fewer weights.

    Raises BadInput where no layer can be replaced.
    """

    def stand(layer: nn.Module, calls: Sequence[Call], read: Sequence[bool]) -> nn.Module | str:
        return _thin(layer, calls, settings)

    return replace_layers(slim, central, "factorise", _has_weights, stand, settings)


def _has_weights(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear | _ConvNd | nn.RNNBase | nn.Embedding | nn.MultiheadAttention)


def _thin(layer: Any, calls: Sequence[Call], settings: Factorise) -> nn.Module | str:
    if type(layer) not in (nn.Linear, nn.Conv1d, nn.Conv2d):
        return f"there is no form of low rank of {type(layer).__name__}"
    if not isinstance(layer, nn.Linear) and layer.groups > 1:
        return "its channels are in groups already"
    weight = layer.weight.detach().flatten(1).double()
    outputs, inputs = weight.shape
    root, inverse = _roots(layer, calls, inputs)
    left, values, right = torch.linalg.svd(weight @ root, full_matrices=False)
    rank = _rank(values, outputs, inputs, settings)
    if rank * (outputs + inputs) >= outputs * inputs:
        return f"rank {rank}, which it needs, saves nothing"
    scale = values[:rank].sqrt()
    return _pair(layer, (scale.unsqueeze(1) * right[:rank]) @ inverse, left[:, :rank] * scale)


def _rank(values: Tensor, outputs: int, inputs: int, settings: Factorise) -> int:
    """`values`: singular values, the largest first."""
    if settings.by == "cost":
        return max(int(settings.keep * outputs * inputs / (outputs + inputs)), 1)
    explained = (values**2).cumsum(0) / (values**2).sum().clamp(min=1e-30)
    return min(int((explained < settings.keep).sum()) + 1, len(values))


def _roots(layer: Any, calls: Sequence[Call], inputs: int) -> tuple[Tensor, Tensor]:
    """The root of the second moments of a layer's inputs, and its inverse, float64 [inputs, inputs]."""
    if inputs > MOST_INPUTS:
        return torch.eye(inputs, dtype=torch.float64), torch.eye(inputs, dtype=torch.float64)
    moments, count = torch.zeros(inputs, inputs, dtype=torch.float64), 0
    for rows in _rows(layer, calls, inputs):
        moments += rows.T @ rows
        count += len(rows)
    moments /= max(count, 1)
    moments += (RIDGE * moments.diagonal().mean() + 1e-12) * torch.eye(inputs, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(moments)
    values = values.clamp(min=float(values.max()) * 1e-12).sqrt()
    return (vectors * values) @ vectors.T, (vectors / values) @ vectors.T


def _rows(layer: Any, calls: Sequence[Call], inputs: int) -> Iterator[Tensor]:
    """What a layer multiplies by its weights, float64 [n, inputs]."""
    for call in calls:
        x = next(tensors_in([call.args, dict(call.kwargs)]))
        rows = x.reshape(-1, inputs) if isinstance(layer, nn.Linear) else _patches(layer, x)
        yield rows[:: max(len(rows) // MOST_ROWS, 1)].double()


def _patches(layer: Any, x: Tensor) -> Tensor:
    """What the filters of a convolution see, [n, inputs]; zeros around the input, whatever its mode of padding."""
    x = F.pad(x, layer._reversed_padding_repeated_twice)
    kernel, dilation, stride = layer.kernel_size, layer.dilation, layer.stride
    if isinstance(layer, nn.Conv1d):  # as a picture of height 1
        x, kernel, dilation, stride = x.unsqueeze(-2), (1, *kernel), (1, *dilation), (1, *stride)
    return F.unfold(x, kernel, dilation, 0, stride).transpose(1, 2).flatten(0, 1)


def _pair(layer: Any, first: Tensor, second: Tensor) -> nn.Module:
    """Two layers with weights `first` [rank, inputs] and `second` [outputs, rank]."""
    rank, bias = len(first), layer.bias is not None
    if isinstance(layer, nn.Linear):
        narrow: Any = nn.Linear(layer.in_features, rank, bias=False)
        wide: Any = nn.Linear(rank, layer.out_features, bias=bias)
    else:
        narrow = type(layer)(
            layer.in_channels,
            rank,
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.dilation,
            bias=False,
            padding_mode=layer.padding_mode,
        )
        wide = type(layer)(rank, layer.out_channels, 1, bias=bias)
    with torch.no_grad():
        narrow.weight.copy_(first.reshape(narrow.weight.shape))
        wide.weight.copy_(second.reshape(wide.weight.shape))
        if bias:
            wide.bias.copy_(layer.bias)
    return nn.Sequential(narrow, wide)
