"""Shrinking: a copy of a model with sliced tensors and layers that know their new sizes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from slimfleet.compression.pruning.attention import SlimAttention
from slimfleet.compression.pruning.full_norm import FullNorm, counts_whole
from slimfleet.compression.pruning.index_map import IndexMap, Kept
from slimfleet.compression.pruning.rules import thin_groups
from slimfleet.compression.pruning.sizes import get_size, set_size


def shrink_model(model: nn.Module, index_map: IndexMap) -> nn.Module:
    """A copy of `model` that holds only what `index_map` keeps; `model` is not changed.

    Its state dict has the names, order and shapes of `index_map.schema`. Attention that lost heads is a
    `SlimAttention`. The groups behind the map must come from `discover`.
    """
    small = copy.deepcopy(model)
    for (path, attribute), count in index_map.removed.items():
        layer = small.get_submodule(path)
        set_size(layer, attribute, get_size(layer, attribute) - count)
    taken: dict[int, Tensor] = {}
    changed = [module for name, module in small.named_modules() if _slice_own(module, name, index_map, taken)]
    for module in changed:
        for layer, fix in _FIXES:
            if isinstance(module, layer) and not counts_whole(module):
                fix(module)
    return _replaced(small, set(changed))


def _slice_own(module: nn.Module, path: str, index_map: IndexMap, taken_from: dict[int, Tensor]) -> bool:
    """Slice the tensors that belong to `module` itself; tell whether any changed."""
    prefix = f"{path}." if path else ""
    changed = False
    for name, tensor in _own_tensors(module):
        # Buffers outside the state dict are in no map.
        kept = index_map.kept.get(prefix + name, ())
        if all(dim is None for dim in kept):
            continue
        is_parameter = isinstance(tensor, nn.Parameter)
        if id(tensor) not in taken_from:
            taken = _take(tensor.detach(), kept)
            taken_from[id(tensor)] = nn.Parameter(taken, tensor.requires_grad) if is_parameter else taken
        setattr(module, name, taken_from[id(tensor)])
        changed = True
    return changed


def _own_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    parameters = module.named_parameters(recurse=False, remove_duplicate=False)
    return [*parameters, *module.named_buffers(recurse=False, remove_duplicate=False)]


def _take(tensor: Tensor, kept: Kept) -> Tensor:
    for dim, positions in enumerate(kept):
        if positions is not None:
            tensor = tensor.index_select(dim, torch.from_numpy(positions).to(tensor.device))
    return tensor


def _fix_convolution(layer: _ConvNd) -> None:
    first, second = layer.weight.shape[:2]
    if layer.transposed:
        layer.groups = layer.groups * first // layer.in_channels if layer.groups > 1 else 1
        layer.in_channels, layer.out_channels = first, second * layer.groups
        return
    inside, outside = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    if layer.groups > 1 and not thin_groups(inside, outside, layer.transposed):
        layer.groups = first // outside
    layer.in_channels, layer.out_channels = second * layer.groups, first


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


def _replaced(model: nn.Module, changed: set[nn.Module]) -> nn.Module:
    """`model` with stand-ins for those of the layers that `changed` which torch's own code cannot run with."""
    stand_ins: dict[nn.Module, nn.Module] = {layer: new for layer in changed if (new := _stand_in(layer)) is not None}
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if child in stand_ins:
                setattr(parent, name, stand_ins[child])
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder):
            # Nested tensors are for the fused kernel, which expects layers of torch's own.
            module.use_nested_tensor &= not any(new in set(module.modules()) for new in stand_ins.values())
    return stand_ins.get(model, model)


def _stand_in(layer: nn.Module) -> nn.Module | None:
    if isinstance(layer, nn.MultiheadAttention):
        return SlimAttention(layer)
    if counts_whole(layer):
        return FullNorm(layer)
    return None
