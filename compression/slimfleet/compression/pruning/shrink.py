"""Shrinking: a copy of a model with sliced tensors and layers that know their new sizes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from slimfleet.compression.pruning.attention import SlimAttention
from slimfleet.compression.pruning.full_norm import FullNorm, counts_whole, standardises
from slimfleet.compression.pruning.index_map import IndexMap, Kept
from slimfleet.compression.pruning.rules import thin_groups
from slimfleet.compression.pruning.sizes import get_size, set_size

_Taken = dict[int, tuple[Tensor, Tensor]]
"""Identity of a full tensor -> that tensor, kept alive, and what was taken from it."""

_Cut = tuple[int, int]
"""How many channels of how many a layer keeps."""


def shrink_model(model: nn.Module, index_map: IndexMap) -> nn.Module:
    """A copy of `model` that holds only what `index_map` keeps; `model` is not changed.

    Its state dict has the names, order and shapes of `index_map.schema`. Attention that lost heads is a
    `SlimAttention`. The groups behind the map must come from `discover`.
    """
    small = copy.deepcopy(model)
    for (path, attribute), count in index_map.removed.items():
        owner = small.get_submodule(path)
        set_size(owner, attribute, get_size(owner, attribute) - count)
    taken: _Taken = {}
    changed = {m: cut for path, m in small.named_modules() if (cut := _slice_own(m, path, index_map, taken))}
    # Found before sizes change: of a norm over two groups one may be left, and is no norm over all channels.
    stand_ins = {layer: new for layer, cut in changed.items() if (new := _stand_in(layer, cut)) is not None}
    for module in changed:
        for kind, fix in _FIXES:
            if isinstance(module, kind) and module not in stand_ins:
                fix(module)
    return _replaced(small, stand_ins)


def _slice_own(module: nn.Module, path: str, index_map: IndexMap, taken: _Taken) -> _Cut | None:
    """Slice the tensors that belong to `module` itself, tied ones alike; None where nothing changes."""
    prefix = f"{path}." if path else ""
    cut: _Cut | None = None
    for name, tensor in _own_tensors(module):
        # Buffers outside the state dict are in no map.
        kept = index_map.kept.get(prefix + name, ())
        if all(dim is None for dim in kept):
            continue
        if id(tensor) not in taken:
            part = _take(tensor.detach(), kept)
            is_parameter = isinstance(tensor, nn.Parameter)
            taken[id(tensor)] = tensor, nn.Parameter(part, tensor.requires_grad) if is_parameter else part
        setattr(module, name, taken[id(tensor)][1])
        cut = cut or next(
            (len(dim), size) for dim, size in zip(kept, tensor.shape, strict=True) if dim is not None
        )
    return cut


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


def _fix_bilinear(layer: nn.Bilinear) -> None:
    layer.out_features, layer.in1_features, layer.in2_features = layer.weight.shape


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


def _fix_attention(layer: SlimAttention) -> None:
    layer.num_heads = layer.out_proj.weight.shape[1] // layer.head_dim


def _fix_full_norm(layer: FullNorm) -> None:
    layer.kept = len(next(layer.parameters()))


_FIXES: tuple[tuple[type[nn.Module], Callable[[Any], None]], ...] = (
    (_ConvNd, _fix_convolution),
    (nn.Linear, _fix_linear),
    (nn.Bilinear, _fix_bilinear),
    (_BatchNorm, _fix_norm),
    (_InstanceNorm, _fix_norm),
    (nn.GroupNorm, _fix_group_norm),
    (nn.PReLU, _fix_prelu),
    (nn.RNNBase, _fix_recurrent),
    (SlimAttention, _fix_attention),
    (FullNorm, _fix_full_norm),
)


def _replaced(model: nn.Module, stand_ins: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """`model` with stand-ins for those of its layers that torch's own code cannot run with fewer channels."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if child in stand_ins:
                setattr(parent, name, stand_ins[child])
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder):
            # Nested tensors are for the fused kernel, which expects layers of torch's own.
            module.use_nested_tensor &= not any(new in set(module.modules()) for new in stand_ins.values())
    return stand_ins.get(model, model)


def _stand_in(layer: nn.Module, cut: _Cut) -> nn.Module | None:
    if isinstance(layer, SlimAttention | FullNorm):
        return None  # it stands in already
    if isinstance(layer, nn.MultiheadAttention):
        return SlimAttention(layer)
    if counts_whole(layer):
        return FullNorm(layer, *cut)
    if standardises(layer):
        assert isinstance(layer, _ConvNd)
        full, kept = layer.in_channels // layer.groups, layer.weight.shape[1]
        return None if kept == full else FullNorm(layer, kept, full)
    return None
