"""Losses of several devices at once, from the loss of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

__all__ = ["CrossEntropy", "Loss", "loss_of_several"]

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of outputs and targets."""

IGNORED = -100
"""The class that `cross_entropy` leaves out unless told of another."""

_DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(("weight", "size_average", "reduce")),
    "ignore_index": IGNORED,
    "reduction": "mean",
    "label_smoothing": 0.0,
}


def loss_of_several(loss: Loss) -> Loss:
    """Losses [devices] of outputs and targets [devices, batch, ...], from `loss` of those of one device.

    Through `vmap`; plain cross-entropy of logits [batch, classes] directly, since vmap takes it apart into twenty small
    operations.
    """
    through_vmap: Loss = torch.func.vmap(loss, randomness="error")
    return CrossEntropy(through_vmap) if _is_cross_entropy(loss) else through_vmap


class CrossEntropy:
    """Mean cross-entropy of each device; of targets that are no numbers of classes, by `otherwise`."""

    def __init__(self, otherwise: Loss) -> None:
        self._otherwise = otherwise

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Losses [devices]."""
        if outputs.dim() != 3 or targets.dim() != 2 or targets.is_floating_point():
            return self._otherwise(outputs, targets)
        # The classes not last: along the last dimension torch takes them one by one.
        each = functional.cross_entropy(outputs.transpose(1, 2), targets, reduction="none")
        return each.sum(1) / (targets != IGNORED).sum(1)


class _Through(fx.Tracer):
    """Traces what modules compute, too."""

    def call_module(self, m: torch.nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        return forward(*args, **kwargs)


def _is_cross_entropy(loss: Loss) -> bool:
    """Whether a loss is `torch.nn.functional.cross_entropy` of its two arguments and nothing else."""
    try:
        nodes = list(_Through().trace(lambda outputs, targets: loss(outputs, targets)).nodes)
    except Exception:  # noqa: BLE001 - foreign code may raise anything while it is traced; vmap takes it
        return False
    if [node.op for node in nodes] != ["placeholder", "placeholder", "call_function", "output"]:
        return False
    outputs, targets, call, result = nodes
    return (
        call.target is functional.cross_entropy
        and tuple(call.args) == (outputs, targets)
        and all(name in _DEFAULTS and _DEFAULTS[name] == value for name, value in call.kwargs.items())
        and result.args == (call,)
    )
