"""Attention with any number of heads: what nn.MultiheadAttention becomes when heads are removed."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimfleet.compression.errors import BadInput


class SlimAttention(nn.Module):
    """Stands in for an nn.MultiheadAttention that lost heads, which torch's own cannot run with.

    Same parameters under the same names, same call, same results; runs inside nn.TransformerEncoderLayer.
    """

    in_proj_weight: Tensor | None
    in_proj_bias: Tensor | None
    q_proj_weight: Tensor
    k_proj_weight: Tensor
    v_proj_weight: Tensor

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self._parameters.update(attention._parameters)
        self.out_proj = attention.out_proj
        self.embed_dim = attention.embed_dim
        self.head_dim = attention.head_dim
        self.num_heads = attention.out_proj.weight.shape[1] // attention.head_dim
        self.dropout = attention.dropout
        self.batch_first = attention.batch_first
        self.training = attention.training
        # nn.TransformerEncoderLayer reads this; False keeps it off a fused kernel that expects all the heads.
        self._qkv_same_embed_dim = False

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As nn.MultiheadAttention.forward; a mask per head is refused with BadInput.

        `is_causal` only promises that `attn_mask` is causal, so it is not needed.
        """
        batched = query.dim() == 3
        if not batched:
            query, key, value = query[None], key[None], value[None]
            key_padding_mask = None if key_padding_mask is None else key_padding_mask[None]
        elif not self.batch_first:
            query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)

        mask = _mask(attn_mask, key_padding_mask, query.dtype)
        mixed, weights = self._attend(*self._project(query, key, value), mask, need_weights)
        output = self.out_proj(mixed.transpose(1, 2).flatten(2))

        if weights is not None and average_attn_weights:
            weights = weights.mean(dim=1)
        if not batched:
            return output[0], None if weights is None else weights[0]
        return output if self.batch_first else output.transpose(0, 1), weights

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.in_proj_weight is not None:
            w_q, w_k, w_v = self.in_proj_weight.chunk(3)
        else:
            w_q, w_k, w_v = self.q_proj_weight, self.k_proj_weight, self.v_proj_weight
        b_q, b_k, b_v = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        return (
            self._split(F.linear(query, w_q, b_q)),
            self._split(F.linear(key, w_k, b_k)),
            self._split(F.linear(value, w_v, b_v)),
        )

    def _split(self, x: Tensor) -> Tensor:
        """(batch, length, heads * head_dim) -> (batch, heads, length, head_dim)."""
        return x.reshape(*x.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        dropout = self.dropout if self.training else 0.0
        if not need_weights:
            return F.scaled_dot_product_attention(query, key, value, mask, dropout), None
        scores = query @ key.transpose(-2, -1) / sqrt(self.head_dim)
        weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
        weights = F.dropout(weights, dropout)
        return weights @ value, weights


def _mask(attn_mask: Tensor | None, key_padding_mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """What to add to the scores (batch, heads, length, source), or None."""
    if attn_mask is not None and attn_mask.dim() != 2:
        raise BadInput(
            f"an attention mask for each head (shape {list(attn_mask.shape)}) cannot follow pruned heads"
        )
    terms = []
    if attn_mask is not None:
        terms.append(_additive(attn_mask, dtype))
    if key_padding_mask is not None:
        terms.append(_additive(key_padding_mask, dtype)[:, None, None, :])
    if not terms:
        return None
    return terms[0] if len(terms) == 1 else terms[0] + terms[1]


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Minus infinity where a boolean mask forbids; a float mask is additive already."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(mask, float("-inf"))
