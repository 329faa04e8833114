"""Depthwise separable convolution: one filter for each input channel, then a mixture of the channels.

Howard et al. 2017 ("MobileNets", arXiv 1704.04861). The start is the closest of the kind: for each input channel, the
best approximation of its filters by products of a filter and a weight (Guo et al. 2018, arXiv 1808.00647, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from slimfleet.compression.model.architectures.fitting import Call
from slimfleet.compression.model.architectures.replacing import replace_layers
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.technique import TechniqueReport
from slimfleet.compression.model.training.tuning import Tuning

__all__ = ["Separate", "separate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Separate:
    """Settings of `separate`."""

    multiplier: Annotated[int, Ge(1), Le(16)] = 1
    """Filters for each input channel; more are closer to the original."""
    worst_fit: Annotated[float, Gt(0)] = 0.3
    """Squared error of a new layer, as a share of the variance of the old one's outputs, above which the old one
    stays."""
    tuning: Tuning = field(default_factory=lambda: Tuning(soft_labels=0.7))


def separate(slim: SlimModel, central: CentralTask, settings: Separate) -> tuple[SlimModel, TechniqueReport]:
    """Replace `nn.Conv1d` and `nn.Conv2d` by a pair of convolutions, where that has fewer weights.

    Raises BadInput where no layer can be replaced.
    """

    def stand(layer: nn.Module, calls: Sequence[Call], read: Sequence[bool]) -> nn.Module | str:
        return _separable(layer, settings.multiplier)

    return replace_layers(slim, central, "separate", _is_convolution, stand, settings)


def _is_convolution(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv1d | nn.Conv2d)


def _separable(layer: Any, multiplier: int) -> nn.Module | str:
    """A depthwise and a pointwise convolution like `layer`, an nn.Conv1d or nn.Conv2d."""
    taps = layer.weight[0, 0].numel()
    inputs, outputs = layer.in_channels, layer.out_channels
    if layer.groups > 1:
        return "its channels are in groups already"
    if taps == 1:
        return "it is pointwise already"
    if multiplier * (taps + outputs) >= taps * outputs:
        return f"{inputs} to {outputs} channels have no fewer weights apart"
    depthwise = type(layer)(
        inputs,
        inputs * multiplier,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        groups=inputs,
        bias=False,
        padding_mode=layer.padding_mode,
    )
    pointwise = type(layer)(inputs * multiplier, outputs, 1, bias=layer.bias is not None)
    filters, mixture = _closest(layer.weight.detach(), multiplier)
    with torch.no_grad():
        depthwise.weight.copy_(filters)
        pointwise.weight.copy_(mixture.reshape(pointwise.weight.shape))
        if layer.bias is not None:
            pointwise.bias.copy_(layer.bias)
    return nn.Sequential(depthwise, pointwise)


def _closest(weight: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """Filters [inputs * multiplier, 1, *kernel] and weights [outputs, inputs * multiplier] of least squared error.

    `weight`: [outputs, inputs, *kernel].
    """
    outputs, inputs = weight.shape[:2]
    of_inputs = weight.flatten(2).transpose(0, 1)  # [inputs, outputs, taps]
    left, values, right = torch.linalg.svd(of_inputs, full_matrices=False)
    root = values[:, :multiplier].sqrt()
    filters = root.unsqueeze(2) * right[:, :multiplier]  # [inputs, multiplier, taps]
    mixture = left[:, :, :multiplier] * root.unsqueeze(1)  # [inputs, outputs, multiplier]
    return (
        filters.reshape(inputs * multiplier, 1, *weight.shape[2:]),
        mixture.transpose(0, 1).reshape(outputs, inputs * multiplier),
    )
