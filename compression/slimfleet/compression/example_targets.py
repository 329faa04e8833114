"""Example targets: zeros that a loss takes, so that a model can be tried and measured without data."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["fitting_targets"]

Loss = Callable[[Any, Any], Any]

MOST_OUTPUTS = 4
"""Tensors among the outputs whose shapes are tried."""


def fitting_targets(loss: Loss, outputs: Any) -> Tensor:
    """Zeros for a batch of one, as targets that `loss` takes with `outputs`, those of a batch of at least two.

    Class numbers come first: what takes integers in place of classes, shape (batch, ...) for outputs (batch, classes,
    ...), and refuses floats there, classifies. Then floats in the shape of the outputs (regression, binary
    cross-entropy, autoencoders), then other usual shapes. Where outputs are a structure, its first tensors are tried
    in turn. Raises what `loss` raises for class numbers where it takes nothing.
    """
    import torch

    from slimfleet.compression.pruning.nested import map_tensors, tensors_in

    outputs = map_tensors(torch.Tensor.detach, outputs)
    tensors = [tensor for tensor in tensors_in(outputs) if tensor.dim()][:MOST_OUTPUTS]
    if not tensors:
        raise ValueError("the model gives no tensor with a first dimension, the examples")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Of targets whose shape differs from that of the outputs, which are then broadcast.
        warnings.filterwarnings("error", "Using a target size")
        for tensor in tensors:
            classes = _classes(tensor)
            if _takes(loss, outputs, classes) and not _takes(loss, outputs, classes.to(tensor.dtype)):
                return classes[:1]
        for tensor in tensors:
            for targets in _usual(tensor):
                if _takes(loss, outputs, targets):
                    return targets[:1]
        loss(outputs, _classes(tensors[0]))
    raise ValueError("the loss refused the targets first and took them the second time")


def _classes(outputs: Tensor) -> Tensor:
    return outputs.new_zeros((outputs.shape[0], *outputs.shape[2:])).long()


def _usual(outputs: Tensor) -> Iterator[Tensor]:
    batch, *rest = outputs.shape
    shapes = dict.fromkeys(((batch, *rest), (batch, *rest[1:]), (batch, *rest[:-1]), (batch,), (batch, 1)))
    floats = [outputs.new_zeros(shape) for shape in shapes]
    yield from floats
    yield from (zeros.long() for zeros in floats)


def _takes(loss: Loss, outputs: Any, targets: Tensor) -> bool:
    try:
        loss(outputs, targets)
    except Exception:  # noqa: BLE001 - a foreign loss may refuse targets in any way
        return False
    return True
