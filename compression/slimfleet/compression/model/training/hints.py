"""Hints: the features of a layer are drawn to those of a teacher's, through a linear map that is thrown away (FitNets,
Romero et al. 2015, arXiv 1412.6550, eq. 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.training.soft_labels import Loss
from slimfleet.compression.model.training.teachers import Batch
from slimfleet.compression.pruning.nested import tensors_in

__all__ = ["HintedLoss", "hints_of"]

Pair = tuple[str, str]
"""Paths of a layer and of the teacher's."""

Features = dict[str, Tensor]


def hints_of(text: str) -> tuple[Pair, ...]:
    """The pairs in `layer=teacher_layer`, several joined by `+`. Raises BadInput for anything else."""
    pairs = []
    for part in filter(None, text.split("+")):
        ours, equals, theirs = (each.strip() for each in part.partition("="))
        if not (ours and equals and theirs):
            raise BadInput(f"distil: hint {part!r} must be layer=teacher_layer, several joined by +")
        pairs.append((ours, theirs))
    return tuple(pairs)


class HintedLoss(nn.Module):
    """A loss, and how far features are from the teacher's: squared, over the mean square of the teacher's.

    Its parameters are the maps. Features that lie on grids of different sizes are pooled to the teacher's.
    Raises BadInput where a model has no such layer, or features have no common shape.
    """

    def __init__(
        self, loss: Loss, weight: float, pairs: Sequence[Pair], student: nn.Module, central: CentralTask
    ) -> None:
        super().__init__()
        self._loss, self._weight, self._pairs = loss, weight, pairs
        self._teacher = (
            central.teachers.models[0],
        )  # in a tuple it is no part of this module, and stays as it is
        with torch.no_grad(), _captured(student, [p for p, _ in pairs]) as ours:
            student(*central.example_inputs)
        with torch.no_grad(), _captured(self._teacher[0], [p for _, p in pairs]) as theirs:
            self._teacher[0](*central.example_inputs)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(central.seed)
            self.maps = nn.ModuleList([_map(pair, ours, theirs) for pair in pairs])

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """As `Loss`: mean of a batch, 0-d."""
        with _captured(model, [p for p, _ in self._pairs]) as ours:
            loss = self._loss(model, batch)
        with torch.no_grad(), _captured(self._teacher[0], [p for _, p in self._pairs]) as theirs:
            self._teacher[0](*batch.arguments)
        for (layer, teacher_layer), linear in zip(self._pairs, self.maps, strict=True):
            wanted = theirs[teacher_layer]
            given = linear(_pooled(ours[layer], wanted))
            loss = loss + self._weight * F.mse_loss(given, wanted) / wanted.square().mean().clamp(min=1e-12)
        return loss


@contextmanager
def _captured(model: nn.Module, paths: Sequence[str]) -> Iterator[Features]:
    """What the layers at `paths` give while the context lasts, channels last; the first tensor of a tuple."""
    features: Features = {}

    def see(path: str, layer: nn.Module, output: Any) -> None:
        x = next(tensors_in(output))
        features[path] = x.movedim(1, -1) if isinstance(layer, _ConvNd) or x.dim() == 4 else x

    hooks = [
        _layer(model, path).register_forward_hook(
            lambda layer, _, output, path=path: see(path, layer, output)
        )
        for path in paths
    ]
    try:
        yield features
    finally:
        for hook in hooks:
            hook.remove()


def _layer(model: nn.Module, path: str) -> nn.Module:
    layers: dict[str, nn.Module] = dict(model.named_modules())
    if path not in layers:
        near = get_close_matches(path, layers, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(filter(None, layers))}"
        raise BadInput(f"distil: {type(model).__name__} has no layer {path!r} for a hint: {hint}")
    return layers[path]


def _map(pair: Pair, ours: Features, theirs: Features) -> nn.Module:
    for path, features in zip(pair, (ours, theirs), strict=True):
        if path not in features:
            raise BadInput(f"distil: layer {path!r} of a hint is not called in a forward pass: name another")
    given, wanted = ours[pair[0]], theirs[pair[1]]
    if given.dim() != wanted.dim() or not given.is_floating_point() or not 2 <= given.dim() <= 4:
        raise BadInput(
            f"distil: features of {pair[0]!r} {list(given.shape)} cannot be drawn to those of {pair[1]!r} "
            f"{list(wanted.shape)}: both must have 2, 3 or 4 dimensions"
        )
    return nn.Linear(given.shape[-1], wanted.shape[-1])


def _pooled(given: Tensor, wanted: Tensor) -> Tensor:
    """`given`, channels last, with the positions of `wanted`."""
    positions = wanted.shape[1:-1]
    if given.shape[1:-1] == positions:
        return given
    first = given.movedim(-1, 1)
    pooled = (
        F.adaptive_avg_pool1d(first, positions[0])
        if given.dim() == 3
        else F.adaptive_avg_pool2d(first, (positions[0], positions[1]))
    )
    return pooled.movedim(1, -1)
