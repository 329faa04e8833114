"""Divergence: how far the outputs of a model are from those of another, without any labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from slimfleet.compression.errors import BadInput
from slimfleet.compression.pruning.nested import tensors_in

__all__ = ["are_logits", "divergence", "squared_difference"]


def are_logits(outputs: Any, targets: Tensor) -> bool:
    """Whether `outputs` are logits [n, classes] for the class numbers `targets`, int64 [n]."""
    return (
        isinstance(outputs, Tensor)
        and outputs.dim() == 2
        and targets.dtype == torch.int64
        and targets.shape == outputs.shape[:1]
    )


def divergence(outputs: Any, reference: Any, targets: Tensor) -> Tensor:
    """Mean KL(reference || outputs) of logits, else their mean squared difference, 0-d. `targets` tell which."""
    if not are_logits(outputs, targets):
        return squared_difference(outputs, reference)
    logs, wanted = F.log_softmax(outputs, dim=1), F.log_softmax(reference, dim=1)
    return F.kl_div(logs, wanted, reduction="batchmean", log_target=True)


def squared_difference(outputs: Any, reference: Any) -> Tensor:
    """The sum over all float tensors, alone or in tuples, lists and dicts, of the mean squared difference, 0-d.

    Raises BadInput where the two do not have tensors of the same shapes.
    """
    ours, theirs = _floats(outputs), _floats(reference)
    if not ours or [x.shape for x in ours] != [x.shape for x in theirs]:
        raise BadInput(
            f"outputs of shapes {[list(x.shape) for x in ours]} cannot be compared with those of a teacher, "
            f"{[list(x.shape) for x in theirs]}: both must have the same float tensors"
        )
    return torch.stack([F.mse_loss(x, y) for x, y in zip(ours, theirs, strict=True)]).sum()


def _floats(outputs: Any) -> list[Tensor]:
    return [x for x in tensors_in(outputs) if x.is_floating_point()]
