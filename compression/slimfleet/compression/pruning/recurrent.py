"""Channel groups of recurrent layers: the hidden units of nn.GRU, nn.LSTM and nn.RNN."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import Tensor, nn

from slimfleet.compression.pruning.groups import ChannelGroup, Member
from slimfleet.compression.pruning.readers import reader_members


def recurrent_groups(model: nn.Module, inputs: tuple[Tensor, ...]) -> Iterator[ChannelGroup]:
    """One group for each recurrent module, named by its path.

    A unit owns its rows of every gate and its column of the recurrent weights, in all layers and directions
    of the module at once (torch gives them one hidden size), and the inputs of all layers that read the hidden
    state. Left whole: modules with projections, and hidden states whose readers cannot be told apart (see
    `readers`).
    """
    for path, module in model.named_modules():
        if isinstance(module, nn.RNNBase) and not module.proj_size and module.hidden_size > 1:
            readers = reader_members(model, module, inputs)
            if readers is not None:
                yield ChannelGroup(path, module.hidden_size, (*_own_members(module, path), *readers))


def _own_members(module: nn.RNNBase, path: str) -> Iterator[Member]:
    size = module.hidden_size
    units = np.arange(size)[:, None]
    for name, tensor in module.named_parameters():
        gates = tensor.shape[0] // size
        yield Member(f"{path}.{name}", 0, units + size * np.arange(gates))
        if name.startswith("weight_hh"):
            yield Member(f"{path}.{name}", 1, units)
        elif name.startswith("weight_ih") and not name.startswith("weight_ih_l0"):
            directions = 1 + module.bidirectional
            yield Member(f"{path}.{name}", 1, units + size * np.arange(directions))
