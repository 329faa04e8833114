"""Second moments of the inputs of layers: which errors of weights their outputs show, and which cancel out."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.layers.activation_grid import rounded_inputs
from slimfleet.compression.model.rounding.calibration import See, run_calibration

__all__ = ["columns_of", "moments_of"]

MOST_INPUTS = 4096
"""A weight with more inputs has a matrix of second moments that is too large: it has none."""


def moments_of(
    model: nn.Module, central: CentralTask, names: Collection[str], examples: int
) -> dict[str, Tensor]:
    """Name of a weight -> second moments of what it is multiplied with, [groups, inputs, inputs], float32.

    Of linear layers, convolutions over one or two dimensions, and recurrent layers: their inputs, and, where there is
    one layer, their states. Other weights, those with too many inputs and those that `model` uses without calling their
    layer are left out.
    """
    found: dict[str, Tensor] = {}
    seen_by: dict[nn.Module, See] = {}
    for path, layer in model.named_modules():
        prefix = f"{path}." if path else ""
        wanted = [
            name
            for name, weight in layer.named_parameters(recurse=False)
            if prefix + name in names and weight[0].numel() <= MOST_INPUTS
        ]
        if wanted and isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.RNNBase):
            seen_by[layer] = _Sum(found, prefix, wanted)
    run_calibration(model, central, examples, seen_by)
    return found


class _Sum:
    """Adds up the moments of one layer's weights."""

    def __init__(self, found: dict[str, Tensor], prefix: str, wanted: Collection[str]) -> None:
        self._found, self._prefix, self._wanted = found, prefix, wanted

    def __call__(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if not rounded_inputs(layer, inputs):
            return
        for name, columns in columns_of(layer, inputs).items():
            if name in self._wanted:
                moments = columns @ columns.transpose(1, 2)
                before = self._found.get(self._prefix + name)
                self._found[self._prefix + name] = moments if before is None else before + moments


def columns_of(layer: nn.Module, inputs: tuple[Any, ...]) -> dict[str, Tensor]:
    """Name of a weight of `layer` -> what each of its filters is multiplied with: [groups, inputs, times]."""
    x = inputs[0]
    if isinstance(layer, nn.Linear):
        return {"weight": x.reshape(-1, layer.in_features).T[None]}
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        return {"weight": _patches(layer, x)}
    assert isinstance(layer, nn.RNNBase)
    return _of_recurrent(layer, inputs)


def _patches(layer: nn.Conv1d | nn.Conv2d, x: Tensor) -> Tensor:
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    flat: tuple[int, ...] = ()
    if isinstance(layer, nn.Conv1d):
        x, flat = x.unsqueeze(-2), (1,)
    patches = F.unfold(
        x, (*flat, *layer.kernel_size), dilation=(*flat, *layer.dilation), stride=(*flat, *layer.stride)
    )
    grouped: Tensor = patches.reshape(len(patches), layer.groups, -1, patches.shape[-1])
    return grouped.permute(1, 2, 0, 3).flatten(2)


def _of_recurrent(layer: nn.RNNBase, inputs: tuple[Any, ...]) -> dict[str, Tensor]:
    """The first layer sees the inputs; states are seen where the outputs show them. One is 0 at first."""
    x = inputs[0]
    columns = {"weight_ih_l0": x.reshape(-1, layer.input_size).T[None]}
    if layer.bidirectional:
        columns["weight_ih_l0_reverse"] = columns["weight_ih_l0"]
    if layer.num_layers == 1:
        states, _ = layer.forward(*inputs)
        states = states.movedim(int(layer.batch_first and x.dim() == 3), 0)  # time first
        ways = states.chunk(2 if layer.bidirectional else 1, dim=-1)
        before = [ways[0][:-1], *(way[1:] for way in ways[1:])]
        for suffix, way in zip(("", "_reverse"), before, strict=False):
            columns[f"weight_hh_l0{suffix}"] = way.reshape(-1, way.shape[-1]).T[None]
    return columns
