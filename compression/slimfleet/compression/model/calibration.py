"""Calibration: ranges of the activations of a model, from training examples."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.layers.activation_grid import ActivationGrid
from slimfleet.compression.model.slim_model import SlimModel

__all__ = ["CHILD", "calibrated"]

CHILD = "input_grid"
"""Name of the grid among the children of its layer."""

BATCH = 64
CLIPPED = torch.linspace(0.5, 1.0, 26)
SAMPLE = 2**16
"""Values of a layer's inputs that a range is chosen on."""


def calibrated(slim: SlimModel, central: CentralTask, bits: int, examples: int) -> SlimModel:
    """A copy whose linear, convolutional and recurrent layers round their inputs to `bits` bits.

    The range of each is the one, among shares of that between its smallest and largest value over so many training
    examples, with the least squared error. A layer that no example reaches keeps its inputs.
    """
    copied = slim.copy()
    seen: dict[str, list[Tensor]] = {}
    layers = {
        path: layer
        for path, layer in copied.model.named_modules()
        if isinstance(layer, nn.Linear | _ConvNd | nn.RNNBase)
    }
    hooks = [
        layer.register_forward_pre_hook(
            lambda _, inputs, path=path: seen.setdefault(path, []).append(inputs[0].detach())
        )
        for path, layer in layers.items()
    ]
    generator = torch.Generator().manual_seed(central.seed)
    chosen = torch.randperm(len(central.training), generator=generator)[:examples]
    copied.model.eval()
    with torch.no_grad():
        for index in torch.split(chosen, BATCH):
            copied.model(*central.training.take(index).arguments)
    for hook in hooks:
        hook.remove()
    for path, layer in layers.items():
        if path in seen:
            _grid(seen[path], bits).attach(layer, CHILD)
    return copied


def _grid(inputs: list[Tensor], bits: int) -> ActivationGrid:
    values = torch.cat([each.flatten() for each in inputs])
    values = values[:: max(values.numel() // SAMPLE, 1)]
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
