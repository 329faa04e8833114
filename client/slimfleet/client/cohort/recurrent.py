"""Recurrent layers written out step by step: torch has no batching rule for its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["written_out"]


@contextmanager
def written_out(model: nn.Module) -> Iterator[None]:
    """While this lasts, each GRU of one layer and one direction computes by operations that `vmap` takes."""
    layers = [each for each in model.modules() if type(each) is nn.GRU and _is_plain(each)]
    for layer in layers:
        layer.forward = partial(_gru, layer)  # type: ignore[assignment]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _is_plain(layer: nn.GRU) -> bool:
    return layer.num_layers == 1 and not layer.bidirectional and layer.bias


def _gru(layer: Any, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs and the last state of `nn.GRU`, of inputs [batch, steps, size] or, not batch first, [steps, batch,
    size]."""
    time, size = int(layer.batch_first), layer.hidden_size
    gates = functional.linear(inputs, layer.weight_ih_l0, layer.bias_ih_l0)
    hidden = inputs.new_zeros((inputs.shape[1 - time], size))
    outputs = []
    for step in gates.unbind(time):
        own = functional.linear(hidden, layer.weight_hh_l0, layer.bias_hh_l0)
        reset, update = torch.sigmoid(step[:, : 2 * size] + own[:, : 2 * size]).chunk(2, 1)
        new = torch.tanh(step[:, 2 * size :] + reset * own[:, 2 * size :])
        hidden = new + update * (hidden - new)
        outputs.append(hidden)
    return torch.stack(outputs, time), hidden.unsqueeze(0)
