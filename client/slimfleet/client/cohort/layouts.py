"""Layouts: how what several devices compute lies in one tensor.

*Wide* is [batch, devices * channels, ...], the channels of all devices side by side; pictures then lie channels-last.
*Deep* is [devices, batch, channels, ...].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Value"]


@dataclass(frozen=True, slots=True)
class Value:
    """What a layer gives for all devices."""

    tensor: Tensor
    wide: bool
    devices: int

    def as_wide(self) -> Tensor:
        """[batch, devices * channels, ...]"""
        wide: Tensor = self.tensor if self.wide else _ToWide.apply(self.tensor)  # type: ignore[no-untyped-call]
        return wide

    def as_deep(self) -> Tensor:
        """[devices, batch, channels, ...]"""
        if not self.wide:
            return self.tensor
        deep: Tensor = _ToDeep.apply(self.tensor, self.devices)  # type: ignore[no-untyped-call]
        return deep


def _wide(deep: Tensor) -> Tensor:
    devices, batch, channels, *places = deep.shape
    wide = torch.empty(
        (batch, devices * channels, *places),
        dtype=deep.dtype,
        device=deep.device,
        memory_format=torch.channels_last if len(places) == 2 else torch.contiguous_format,
    )
    wide.view(batch, devices, channels, *places).copy_(deep.transpose(0, 1))
    return wide


def _deep(wide: Tensor, devices: int) -> Tensor:
    batch, channels, *places = wide.shape
    deep = wide.new_empty((devices, batch, channels // devices, *places))
    deep.transpose(0, 1).copy_(wide.reshape(batch, devices, -1, *places))
    return deep


# One copy each way. Autograd's own reshaping makes two, and leaves gradients of pictures in a layout in which all that
# follows is slow.
class _ToWide(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, deep: Tensor) -> Tensor:
        ctx.devices = len(deep)
        return _wide(deep)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _deep(gradient, ctx.devices)


class _ToDeep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, wide: Tensor, devices: int) -> Tensor:
        return _deep(wide, devices)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _wide(gradient), None
