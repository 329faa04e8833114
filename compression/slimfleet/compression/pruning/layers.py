"""Layers: which of their own tensors the input and the output channels index."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

Side = tuple[tuple[str, int], ...]
"""Attribute names of tensors, each with the dimension that the channels index."""


def input_side(layer: nn.Module) -> Side | None:
    """What the input channels of `layer` index; None where channels of such a layer cannot be removed."""
    if isinstance(layer, _ConvNd) and layer.groups == 1:
        return (("weight", 0 if layer.transposed else 1),)
    if isinstance(layer, nn.Linear):
        return (("weight", 1),)
    if isinstance(layer, nn.RNNBase):
        return (("weight_ih_l0", 1), ("weight_ih_l0_reverse", 1))[: 1 + layer.bidirectional]
    return _both_sides(layer)


def output_side(layer: nn.Module) -> Side | None:
    """What the output channels of `layer` index; None where channels of such a layer cannot be removed."""
    if isinstance(layer, _ConvNd) and layer.groups == 1:
        return _present(layer, ("weight", 1 if layer.transposed else 0), ("bias", 0))
    if isinstance(layer, nn.Linear):
        return _present(layer, ("weight", 0), ("bias", 0))
    return _both_sides(layer)


def owned_positions(layer: nn.Module, is_output: bool, channel: int) -> range:
    """The positions that must go with `channel`: all of its group in grouped convolutions and group norms.

    They are the same for every channel of a group, on the input side and on the output side, which is what
    couples these channels.
    """
    if isinstance(layer, _ConvNd) and layer.groups > 1:
        channels = layer.out_channels if is_output else layer.in_channels
        group, size = channel // (channels // layer.groups), layer.out_channels // layer.groups
    elif isinstance(layer, nn.GroupNorm):
        size = layer.num_channels // layer.num_groups
        group = channel // size
    else:
        group, size = channel, 1
    return range(group * size, (group + 1) * size)


def _both_sides(layer: nn.Module) -> Side | None:
    """Layers that keep channels (or groups of them) apart: input and output index the same positions."""
    if isinstance(layer, _ConvNd) and not layer.transposed:
        return _present(layer, ("weight", 0), ("bias", 0))
    if isinstance(layer, nn.PReLU):
        return (("weight", 0),) if layer.num_parameters > 1 else ()
    if isinstance(layer, _BatchNorm | _InstanceNorm):
        names = ("weight", "bias", "running_mean", "running_var")
        # A norm without tensors keeps its size in an attribute alone, which slicing tensors cannot change.
        return _present(layer, *((name, 0) for name in names)) or None
    if isinstance(layer, nn.GroupNorm):
        return _present(layer, ("weight", 0), ("bias", 0)) or None
    return None


def _present(layer: nn.Module, *side: tuple[str, int]) -> Side:
    return tuple((name, dim) for name, dim in side if getattr(layer, name) is not None)
