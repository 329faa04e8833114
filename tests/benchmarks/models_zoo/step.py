"""One training step on a batch of two, and the loss that it takes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimfleet.compression.pruning.nested import tensors_in

from .zoo import CLASSES


def loss(outputs: object, targets: Tensor) -> Tensor:
    """Cross-entropy, summed over all outputs (auxiliary heads, the heads of a dict) and averaged over the rest.

    `targets` are the classes of a batch, (batch,); where an output has more dimensions, (batch, classes, ...),
    they stand for all of its positions.
    """
    heads = [output for output in tensors_in(outputs) if output.dim() > 1 and output.shape[1] == CLASSES]
    return sum(
        (F.cross_entropy(head, _spread(targets, head)) for head in heads),
        start=torch.zeros((), dtype=torch.float32),
    )


def _spread(targets: Tensor, head: Tensor) -> Tensor:
    return targets.reshape(-1, *[1] * (head.dim() - 2)).expand(len(targets), *head.shape[2:])


def train(model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """One step of SGD; ValueError where the loss or a gradient is not finite."""
    model.train()
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    batch = tuple(torch.cat([x, x]) for x in inputs)
    value = loss(model(*batch), torch.arange(2) % CLASSES)
    value.backward()
    finite = [p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters()]
    if not (bool(value.isfinite()) and all(finite)):
        raise ValueError(f"loss {value.item()}, {finite.count(False)} gradients that are not finite")
    optimiser.step()
