"""Readers of the hidden units of a recurrent layer, found by poisoning.

A unit is set to NaN on the way out of its layer; the input channels of other layers at which NaN arrives
are its readers. NaN passes through every step that keeps channels apart (activations, pooling over time,
slices, concatenation, flattening) and is stopped at each layer that mixes them, so that later readers are
not found.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from slimfleet.compression.pruning.groups import Member
from slimfleet.compression.pruning.layers import input_side
from slimfleet.compression.pruning.nested import map_tensors, tensors_in

_Reads = dict[tuple[str, int], NDArray[np.intp]]
"""Tensor name and dimension -> sorted positions that read one unit."""

_MIXING = (_ConvNd, nn.Linear, nn.RNNBase)


def reader_members(
    model: nn.Module, source: nn.RNNBase, inputs: tuple[Tensor, ...]
) -> tuple[Member, ...] | None:
    """The positions along other layers' inputs that read each hidden unit of `source`, a layer of `model`.

    Two units are poisoned; the readers of the others follow in equal steps, as they do in every layout that
    slicing, concatenating and flattening can make. None when units reach the output of the model, or are
    read in a way that does not keep them apart.
    """
    first = _reads_of_unit(model, source, 0, inputs)
    second = _reads_of_unit(model, source, 1, inputs)
    if first is None or second is None or first.keys() != second.keys():
        return None
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    members = []
    for (tensor, dim), start in first.items():
        if len(start) != len(second[tensor, dim]):
            return None
        positions = start + np.arange(source.hidden_size)[:, None] * (second[tensor, dim] - start)
        if positions.max() >= shapes[tensor][dim] or len(np.unique(positions)) < positions.size:
            return None
        members.append(Member(tensor, dim, positions))
    return tuple(members)


def _reads_of_unit(
    model: nn.Module, source: nn.RNNBase, unit: int, inputs: tuple[Tensor, ...]
) -> _Reads | None:
    reads: _Reads = {}
    with ExitStack() as hooks, torch.no_grad():
        for path, layer in model.named_modules():
            if layer is not source and input_side(layer):
                hooks.callback(layer.register_forward_pre_hook(_watch(path, reads)).remove)
        hooks.callback(source.register_forward_hook(_poison(unit)).remove)
        output = model(*inputs)
    return None if any(bool(tensor.isnan().any()) for tensor in tensors_in(output)) else reads


def _poison(unit: int) -> Callable[..., Any]:
    def hook(layer: nn.RNNBase, _: object, output: Any) -> Any:
        def mark(states: Tensor) -> Tensor:
            states = states.clone()
            # The outputs of both directions stand side by side, final states have one direction a row.
            states[..., unit :: layer.hidden_size] = torch.nan
            return states

        return map_tensors(mark, output)

    return hook


def _watch(path: str, reads: _Reads) -> Callable[..., Any]:
    def hook(layer: nn.Module, args: tuple[Any, ...]) -> Any:
        states = next(tensors_in(args[:1]), None)
        if states is None or not bool(states.isnan().any()):
            return None
        positions = _poisoned_channels(layer, states)
        for name, dim in input_side(layer) or ():
            key = f"{path}.{name}", dim
            reads[key] = np.union1d(reads.get(key, positions), positions)
        return (map_tensors(torch.nan_to_num, args[0]), *args[1:]) if isinstance(layer, _MIXING) else None

    return hook


def _poisoned_channels(layer: nn.Module, states: Tensor) -> NDArray[np.intp]:
    if isinstance(layer, nn.Linear | nn.RNNBase):
        channel_dim = states.dim() - 1
    elif isinstance(layer, _ConvNd):
        channel_dim = states.dim() - layer.weight.dim() + 1
    else:
        channel_dim = 1
    others = [dim for dim in range(states.dim()) if dim != channel_dim]
    poisoned = states.isnan().any(dim=others) if others else states.isnan()
    return np.flatnonzero(poisoned.numpy())
