"""Discovery of the channel groups of a model."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from slimfleet.compression.pruning.dependency import dependency_groups
from slimfleet.compression.pruning.groups import Discovery
from slimfleet.compression.pruning.recurrent import recurrent_groups
from slimfleet.compression.pruning.removable import removable
from slimfleet.compression.pruning.transformer import transformer_groups


def discover(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> Discovery:
    """The channel groups of `model`, in the order of its state dict; `model` is not changed.

    `example_inputs` are what `model(*example_inputs)` takes, a batch of one is enough. Convolutions, linear
    layers, norms and residual sums are followed by torch-pruning; recurrent units, attention heads and the
    MLPs of Transformer layers have rules of their own. Inputs, outputs and the model dimension of
    Transformers stay whole.

    Every group returned has been tried: with half of its channels removed the model computes what it computes
    with these channels set to zero. What fails (hidden states added to one another, channels behind a layer
    norm, tied parameters, layers that nothing is known about) is left whole, so it costs savings, never
    correctness.
    """
    names = list(model.state_dict())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        probe = copy.deepcopy(model).eval().requires_grad_(True)
        found = [
            *dependency_groups(probe, example_inputs),
            *recurrent_groups(probe, example_inputs),
            *transformer_groups(probe),
        ]
        found.sort(key=lambda group: names.index(group.members[0].tensor))
        if not removable(probe, found, example_inputs):
            found = [group for group in found if removable(probe, [group], example_inputs)]
    return Discovery(tuple(found))
