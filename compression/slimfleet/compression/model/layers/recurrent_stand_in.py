"""Recurrent stand-in: a cheaper recurrent layer that answers as the one that it takes the place of."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from slimfleet.compression.pruning.nested import map_tensors

__all__ = ["RecurrentStandIn"]


class RecurrentStandIn(nn.Module):
    """A GRU, LSTM or RNN, and linear maps of its outputs and of its states to the old layer's widths.

    A map is the identity where the width is the same, or where the model does not read the result.
    """

    def __init__(
        self,
        split: int,
        cell_state: bool,
        layer: nn.Module | None = None,
        outputs: nn.Module | None = None,
        states: nn.Module | None = None,
    ) -> None:
        """`split`: into how many states of the old layer, one a direction, each mapped one is split. `cell_state`:
        whether the old layer returned one; the hidden state stands for that where `layer` has none."""
        super().__init__()
        self.split, self.cell_state = split, cell_state
        self.layer = layer or nn.Identity()
        self.outputs = outputs or nn.Identity()
        self.states = states or nn.Identity()

    def forward(self, x: Tensor | PackedSequence) -> Any:
        """As torch's recurrent layers, from the zero state."""
        outputs, state = self.layer(x)
        hidden, *cell = state if isinstance(state, tuple) else (state,)
        # [layers, ..., split * width] to [layers * split, ..., width]
        mapped = self.states(hidden).unflatten(-1, (self.split, -1)).movedim(-2, 1).flatten(0, 1)
        told = (mapped, cell[0] if cell else mapped) if self.cell_state else mapped
        return map_tensors(self.outputs, outputs), told
