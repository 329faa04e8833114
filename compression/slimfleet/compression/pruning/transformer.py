"""Channel groups inside Transformer layers: attention heads and the hidden units of the MLP.

The model dimension stays whole: embeddings, norms and every residual sum share it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import nn

from slimfleet.compression.pruning.groups import ChannelGroup, Member


def transformer_groups(model: nn.Module) -> Iterator[ChannelGroup]:
    """Groups `<path>.heads` of each nn.MultiheadAttention, `<path>.mlp` of each Transformer layer of torch.

    Attention with extra key and value positions (add_bias_kv, add_zero_attn) is left whole.
    """
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        if type(module) is nn.MultiheadAttention and module.bias_k is None and not module.add_zero_attn:
            yield ChannelGroup(f"{prefix}heads", module.num_heads, _head_members(module, prefix))
        if isinstance(module, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
            yield ChannelGroup(f"{prefix}mlp", module.linear1.out_features, _mlp_members(module, prefix))


def _head_members(attention: nn.MultiheadAttention, prefix: str) -> tuple[Member, ...]:
    rows = np.arange(attention.embed_dim).reshape(attention.num_heads, attention.head_dim)
    # Query, key and value blocks stand one above the other.
    stacked = np.concatenate([rows + block * attention.embed_dim for block in range(3)], axis=1)
    members = []
    if attention._qkv_same_embed_dim:
        members.append(Member(f"{prefix}in_proj_weight", 0, stacked))
    else:
        members += [Member(f"{prefix}{x}_proj_weight", 0, rows) for x in "qkv"]
    if attention.in_proj_bias is not None:
        members.append(Member(f"{prefix}in_proj_bias", 0, stacked))
    return (*members, Member(f"{prefix}out_proj.weight", 1, rows))


def _mlp_members(
    layer: nn.TransformerEncoderLayer | nn.TransformerDecoderLayer, prefix: str
) -> tuple[Member, ...]:
    units = np.arange(layer.linear1.out_features)[:, None]
    bias = () if layer.linear1.bias is None else (Member(f"{prefix}linear1.bias", 0, units),)
    return (Member(f"{prefix}linear1.weight", 0, units), *bias, Member(f"{prefix}linear2.weight", 1, units))
