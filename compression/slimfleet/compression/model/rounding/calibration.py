"""Calibration: the inputs that the layers of a model see, from training examples, and the ranges of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.layers.activation_grid import ActivationGrid, rounded_inputs
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.technique import LayerChange
from slimfleet.compression.pruning.attention import SlimAttention

__all__ = ["CHILD", "calibrated", "run_calibration"]

CHILD = "input_grid"
"""Name of the grid among the children of its layer."""

BATCH = 64
CLIPPED = torch.linspace(0.5, 1.0, 26)
SAMPLE = 2**14
"""Values of a layer's inputs that a range is chosen on, in each batch."""

See = Callable[[nn.Module, tuple[Any, ...]], None]
"""Sees a layer and its positional inputs."""


def run_calibration(
    model: nn.Module, central: CentralTask, examples: int, seen_by: Mapping[nn.Module, See]
) -> None:
    """Run `model` in evaluation mode on so many training examples; each layer of `seen_by` shows its inputs."""
    generator = torch.Generator().manual_seed(central.seed)
    chosen = torch.randperm(len(central.training), generator=generator)[:examples]
    model.eval()
    with _hooked(seen_by), torch.no_grad():
        for index in torch.split(chosen, BATCH):
            model(*central.training.take(index).arguments)


@contextmanager
def _hooked(seen_by: Mapping[nn.Module, See]) -> Iterator[None]:
    hooks = [layer.register_forward_pre_hook(see) for layer, see in seen_by.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def calibrated(
    slim: SlimModel, central: CentralTask, bits: int, examples: int
) -> tuple[SlimModel, tuple[LayerChange, ...]]:
    """A copy whose linear, convolutional, recurrent and attention layers round their inputs to `bits` bits, and what is
    not rounded.

    The range of each is the one, among shares of that between its smallest and largest value over so many training
    examples, with the least squared error.
    """
    copied = slim.copy()
    layers = {
        path: layer
        for path, layer in copied.model.named_modules()
        if isinstance(layer, nn.Linear | _ConvNd | nn.RNNBase | nn.MultiheadAttention | SlimAttention)
    }
    seen = {path: _Seen() for path in layers}
    run_calibration(copied.model, central, examples, {layer: seen[path] for path, layer in layers.items()})
    left = []
    for path, layer in layers.items():
        if seen[path].values:
            _round(layer, seen[path], bits)
        if reason := _unrounded(layer, bool(seen[path].values)):
            left.append(LayerChange(path, reason))
    return copied, tuple(left)


def _round(layer: nn.Module, seen: _Seen, bits: int) -> None:
    """Let `layer` round its inputs; one that rounds them to no more bits already stays as it is."""
    there = layer._modules.get(CHILD)
    if not isinstance(there, ActivationGrid):
        seen.grid(bits).attach(layer, CHILD)
    elif there.bits > bits:
        layer.add_module(CHILD, seen.grid(bits))


def _unrounded(layer: nn.Module, reached: bool) -> str | None:
    """What a grid at the inputs of `layer` does not round."""
    if not reached:
        return "its inputs are not rounded: they are no float tensor, or the layer around it uses its weights itself"
    if isinstance(layer, nn.RNNBase):
        return "its hidden states are not rounded, its inputs are"
    if isinstance(layer, nn.MultiheadAttention | SlimAttention):
        return "what it computes inside is not rounded, its inputs are"
    return None


class _Seen:
    """A sample of the inputs of a layer, with its smallest and largest."""

    def __init__(self) -> None:
        self.values: list[Tensor] = []

    def __call__(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        for x in rounded_inputs(layer, inputs):
            flat = x.detach().flatten()
            if flat.numel():
                self.values += [flat[:: max(flat.numel() // SAMPLE, 1)].clone(), flat.min()[None]]
                self.values.append(flat.max()[None])

    def grid(self, bits: int) -> ActivationGrid:
        values = torch.cat(self.values).float()
        grid, count = ActivationGrid(bits), 2**bits - 1
        least, most = values.min().clamp(max=0), values.max().clamp(min=0)
        best = torch.inf
        for clipped in CLIPPED:
            step = ((most - least) * clipped / count).clamp(min=1e-12)
            zero = (-least * clipped / step).round()
            rounded = ((values / step).round() + zero).clamp(0, count)
            error = float((((rounded - zero) * step - values) ** 2).sum())
            if error < best:
                best = error
                grid.step.copy_(step)
                grid.zero.copy_(zero)
        return grid
