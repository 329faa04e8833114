"""Skipped: what is left of a block that a model goes without."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["Skipped"]


class Skipped(nn.Module):
    """Returns its first input; `nn.Identity` takes no others, such as the mask of a Transformer layer."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """`x`."""
        return x
