"""Recurrent layers become cheaper: an LSTM becomes a GRU, two directions become one, with fewer units if wanted.

A GRU has three gates for the LSTM's four (Cho et al. 2014, arXiv 1406.1078). Where the width changes, a linear map
brings outputs, and states that the model reads, back to the old width. The start takes over what both have: the gates
of the forward direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from annotated_types import Gt, Le
from torch import Tensor, nn

from slimfleet.compression.model.architectures.fitting import Call
from slimfleet.compression.model.architectures.replacing import replace_layers
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.layers.recurrent_stand_in import RecurrentStandIn
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.technique import TechniqueReport
from slimfleet.compression.model.training.tuning import Tuning

__all__ = ["Recurrent", "recurrent"]


_READ_BY_MODELS = ("input_size", "hidden_size", "num_layers", "batch_first", "bidirectional")
"""Attributes of the old layer that the code around it may look at; the new one shows the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrent:
    """Settings of `recurrent`."""

    gru: bool = True
    """An LSTM becomes a GRU."""
    unidirectional: bool = True
    """A layer of two directions keeps the forward one."""
    hidden: Annotated[float, Gt(0), Le(1)] = 1.0
    """Share of the hidden units that the new layer has."""
    worst_fit: Annotated[float, Gt(0)] = 0.6
    """Squared error of a new layer, as a share of the variance of the old one's outputs, above which the old one
    stays."""
    tuning: Tuning = field(default_factory=lambda: Tuning(soft_labels=0.7))


def recurrent(
    slim: SlimModel, central: CentralTask, settings: Recurrent
) -> tuple[SlimModel, TechniqueReport]:
    """Replace `nn.LSTM`, `nn.GRU` and `nn.RNN`. Raises BadInput where no layer can be replaced."""

    def stand(layer: nn.Module, calls: Sequence[Call], read: Sequence[bool]) -> nn.Module | str:
        assert isinstance(layer, nn.RNNBase)
        return _cheaper(layer, calls, read, settings)

    return replace_layers(slim, central, "recurrent", _is_recurrent, stand, settings)


def _is_recurrent(layer: nn.Module) -> bool:
    return isinstance(layer, nn.RNNBase)


def _cheaper(
    old: nn.RNNBase, calls: Sequence[Call], read: Sequence[bool], settings: Recurrent
) -> nn.Module | str:
    has_cell = isinstance(old, nn.LSTM)
    if old.proj_size:
        return "its states have a size of their own"
    if any(len(call.args) + len(call.kwargs) > 1 for call in calls):
        return "it gets its first state from the model"
    if has_cell and read[-1]:
        return "the model reads its cell state"
    before = 2 if old.bidirectional else 1
    after = 1 if settings.unidirectional else before
    hidden = max(round(settings.hidden * old.hidden_size), 1)
    as_gru = has_cell and settings.gru
    if (after, hidden, as_gru) == (before, old.hidden_size, False):
        return "it has nothing of what is to go"
    reads_states = any(read[1:])
    split = before // after if reads_states else 1
    new = RecurrentStandIn(
        split,
        has_cell,
        _layer(old, hidden, bidirectional=after == 2, as_gru=as_gru),
        _map(hidden * after, old.hidden_size * before) if read[0] else None,
        _map(hidden, old.hidden_size * split) if reads_states else None,
    )
    for name in _READ_BY_MODELS:
        setattr(new, name, getattr(old, name))
    return new


def _map(width: int, wanted: int) -> nn.Module | None:
    """A linear map that starts as the identity on the first of its outputs; None where the width is the same."""
    if width == wanted:
        return None
    new = nn.Linear(width, wanted, bias=False)
    nn.init.eye_(new.weight)
    return new


def _layer(old: nn.RNNBase, hidden: int, *, bidirectional: bool, as_gru: bool) -> nn.RNNBase:
    """A layer of the new sizes, which starts with the weights of the first of the old units."""
    given = {"nonlinearity": old.nonlinearity} if isinstance(old, nn.RNN) else {}
    kind: Any = nn.GRU if as_gru else type(old)
    new: nn.RNNBase = kind(
        old.input_size,
        hidden,
        old.num_layers,
        bias=old.bias,
        batch_first=old.batch_first,
        dropout=old.dropout,
        bidirectional=bidirectional,
        **given,
    )
    gates = _GATES[type(old), as_gru]
    with torch.no_grad():
        for name, weight in new.named_parameters():
            theirs: Tensor = old.get_parameter(name).detach()
            theirs = theirs.reshape(-1, old.hidden_size, *theirs.shape[1:])  # gates, units, inputs
            rows = theirs[gates, :hidden].flatten(0, 1)
            if rows.dim() == 2 and not name.startswith(
                "weight_ih_l0"
            ):  # its columns are units, of each direction
                rows = rows.reshape(len(rows), -1, old.hidden_size)[:, :, :hidden].flatten(1)[
                    :, : weight.shape[1]
                ]
            weight.copy_(rows)
    return new


_GATES: dict[tuple[type[nn.RNNBase], bool], list[int]] = {
    (nn.RNN, False): [0],
    (nn.GRU, False): [0, 1, 2],
    (nn.LSTM, False): [0, 1, 2, 3],
    (nn.LSTM, True): [3, 1, 2],  # reset, update and new of a GRU from output, forget and cell gate
}
