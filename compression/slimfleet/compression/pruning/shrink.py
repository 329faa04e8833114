"""Shrinking: a copy of a model with sliced tensors and layers that know their new sizes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from slimfleet.compression.pruning.attention import SlimAttention
from slimfleet.compression.pruning.index_map import IndexMap, Kept


def shrink_model(model: nn.Module, index_map: IndexMap) -> nn.Module:
    """A copy of `model` that holds only what `index_map` keeps; `model` is not changed.

    Its state dict has the names, order and shapes of `index_map.schema`. Attention that lost heads is a
    `SlimAttention`. The groups behind the map must come from `discover`.
    """
    small = copy.deepcopy(model)
    changed = [module for name, module in small.named_modules() if _slice_own(module, name, index_map)]
    for module in changed:
        for layer, fix in _FIXES:
            if isinstance(module, layer):
                fix(module)
    return _replace_attention(small)


def _slice_own(module: nn.Module, path: str, index_map: IndexMap) -> bool:
    """Slice the tensors that belong to `module` itself; tell whether any changed."""
    prefix = f"{path}." if path else ""
    changed = False
    for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
        # Buffers outside the state dict are in no map.
        kept = index_map.kept.get(prefix + name, ())
        if all(dim is None for dim in kept):
            continue
        taken = _take(tensor.detach(), kept)
        is_parameter = isinstance(tensor, nn.Parameter)
        setattr(module, name, nn.Parameter(taken, tensor.requires_grad) if is_parameter else taken)
        changed = True
    return changed


def _take(tensor: Tensor, kept: Kept) -> Tensor:
    for dim, positions in enumerate(kept):
        if positions is not None:
            tensor = tensor.index_select(dim, torch.from_numpy(positions).to(tensor.device))
    return tensor


def _fix_convolution(layer: _ConvNd) -> None:
    outputs, inputs = (1, 0) if layer.transposed else (0, 1)
    if layer.groups > 1:
        # Whole groups are removed, so the filters in a group stay as many.
        layer.groups = layer.groups * layer.weight.shape[outputs] // layer.out_channels
    layer.out_channels = layer.weight.shape[outputs]
    layer.in_channels = layer.weight.shape[inputs] * layer.groups


def _fix_linear(layer: nn.Linear) -> None:
    layer.out_features, layer.in_features = layer.weight.shape


def _fix_norm(layer: _BatchNorm | _InstanceNorm) -> None:
    sized = layer.weight if layer.affine else layer.running_mean
    assert sized is not None
    layer.num_features = len(sized)


def _fix_group_norm(layer: nn.GroupNorm) -> None:
    # Whole norm groups are removed, so that those left see the statistics they saw before.
    layer.num_groups = layer.num_groups * len(layer.weight) // layer.num_channels
    layer.num_channels = len(layer.weight)


def _fix_prelu(layer: nn.PReLU) -> None:
    layer.num_parameters = len(layer.weight)


def _fix_recurrent(layer: nn.RNNBase) -> None:
    layer.input_size = layer.get_parameter("weight_ih_l0").shape[1]
    layer.hidden_size = layer.get_parameter("weight_hh_l0").shape[1]
    layer.flatten_parameters()


_FIXES: tuple[tuple[type[nn.Module], Callable[[Any], None]], ...] = (
    (_ConvNd, _fix_convolution),
    (nn.Linear, _fix_linear),
    (_BatchNorm, _fix_norm),
    (_InstanceNorm, _fix_norm),
    (nn.GroupNorm, _fix_group_norm),
    (nn.PReLU, _fix_prelu),
    (nn.RNNBase, _fix_recurrent),
)


def _replace_attention(model: nn.Module) -> nn.Module:
    if _lost_heads(model):
        return SlimAttention(model)
    slim: dict[nn.Module, SlimAttention] = {}
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if _lost_heads(child):
                slim.setdefault(child, SlimAttention(child))
                setattr(parent, name, slim[child])
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and any(
            isinstance(m, SlimAttention) for m in module.modules()
        ):
            # Nested tensors are for the fused kernel, which expects all the heads.
            module.use_nested_tensor = False
    return model


def _lost_heads(module: nn.Module) -> TypeGuard[nn.MultiheadAttention]:
    return isinstance(module, nn.MultiheadAttention) and module.out_proj.weight.shape[1] != module.embed_dim
