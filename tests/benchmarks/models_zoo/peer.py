"""torch-pruning alone, as its examples use it: half of every layer that it finds, the classifier left whole."""

from __future__ import annotations

import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from .zoo import CLASSES


def pruned(model: nn.Module, inputs: tuple[Tensor, ...]) -> nn.Module:
    """`model`, changed in place. Raises what torch-pruning raises, or what the pruned model does in evaluation mode.

    Its examples for timm tell it the heads of attention with one matrix for queries, keys and values and set the
    sizes of the heads afterwards; those for torchvision keep sizes divisible by the heads, and set the width that
    the Vision Transformer reads.
    """
    model.eval().requires_grad_(True)
    fused = {
        m: m.qkv
        for m in model.modules()
        if hasattr(m, "num_heads") and isinstance(getattr(m, "qkv", None), nn.Module)
    }
    heads = {qkv: module.num_heads for module, qkv in fused.items()}
    pruner = torch_pruning.pruner.MagnitudePruner(
        model,
        inputs,
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=_classifiers(model),
        num_heads=heads,
        in_channel_groups={},
        out_channel_groups={},
        round_to=next((m.num_heads for m in model.modules() if isinstance(m, nn.MultiheadAttention)), None),
        output_transform=_one_tensor,
    )
    pruner.step()
    for module, qkv in fused.items():
        module.num_heads = heads[qkv]
        module.head_dim = qkv.weight.shape[0] // (3 * module.num_heads)
        # What newer versions of timm keep beside the size of one head.
        if hasattr(module, "attn_dim"):
            module.attn_dim = module.num_heads * module.head_dim
    if hasattr(model, "hidden_dim") and hasattr(model, "conv_proj"):
        model.hidden_dim = model.conv_proj.out_channels
    with torch.no_grad():
        model(*inputs)
    return model


def _classifiers(model: nn.Module) -> list[nn.Module]:
    linear = (m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == CLASSES)
    convolutions = (m for m in model.modules() if isinstance(m, _ConvNd) and m.out_channels == CLASSES)
    return [*linear, *convolutions]


def _one_tensor(output: object) -> object:
    """Dicts of outputs, which torch-pruning does not read, as the list of their values."""
    return list(output.values()) if isinstance(output, dict) else output
