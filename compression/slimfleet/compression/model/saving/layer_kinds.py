"""Kinds of layers that a file may ask for: one table, name -> how such a layer is told and made.

A file names a kind and its arguments; nothing else of it becomes code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import nn

from slimfleet.compression.errors import PayloadError
from slimfleet.compression.model.layers.activation_grid import ActivationGrid
from slimfleet.compression.model.layers.recurrent_stand_in import RecurrentStandIn
from slimfleet.compression.model.layers.skipped import Skipped
from slimfleet.compression.pruning.attention import SlimAttention
from slimfleet.compression.pruning.full_norm import FullNorm

__all__ = ["KINDS", "LayerKind", "kind_of"]

Arguments = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LayerKind:
    """How a layer of one type is made anew; its tensors come from the file."""

    type: type[nn.Module]
    arguments: tuple[str, ...] = ()
    """Attributes that are the arguments of its constructor."""
    flags: tuple[str, ...] = ()
    """Arguments that say whether the layer has a tensor of that name."""
    from_original: bool = False
    """Whether it is made from the layer that it takes the place of."""
    attach: Callable[[Any, nn.Module, str], None] | None = None
    """How it becomes a child of its parent, where setting it as an attribute is not enough."""

    def put(self, parent: nn.Module, name: str, layer: nn.Module) -> None:
        """Make `layer` the child `name` of `parent`."""
        if self.attach is None:
            setattr(parent, name, layer)
        else:
            self.attach(layer, parent, name)

    def told(self, layer: nn.Module) -> dict[str, Any]:
        """The arguments that make a layer like this one."""
        told = {name: getattr(layer, name) for name in self.arguments}
        return told | {name: getattr(layer, name) is not None for name in self.flags}

    def made(self, arguments: Arguments, original: nn.Module | None) -> nn.Module:
        """A layer of this kind. Raises PayloadError("architecture") where the arguments do not make one."""
        if arguments.keys() != {*self.arguments, *self.flags}:
            raise PayloadError("architecture", f"{self.type.__name__} has no arguments {sorted(arguments)}")
        given = {
            name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()
        }
        try:
            return self.type(*([original] if self.from_original else []), **given)
        except Exception as error:
            raise PayloadError("architecture", f"{self.type.__name__} cannot be made: {error}") from error


_CONVOLUTION = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "padding_mode",
)
_RECURRENT = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")

KINDS: Mapping[str, LayerKind] = MappingProxyType(
    {
        "identity": LayerKind(nn.Identity),
        "sequential": LayerKind(nn.Sequential),
        "linear": LayerKind(nn.Linear, ("in_features", "out_features"), ("bias",)),
        "conv1d": LayerKind(nn.Conv1d, _CONVOLUTION, ("bias",)),
        "conv2d": LayerKind(nn.Conv2d, _CONVOLUTION, ("bias",)),
        "gru": LayerKind(nn.GRU, _RECURRENT),
        "lstm": LayerKind(nn.LSTM, _RECURRENT),
        "rnn": LayerKind(nn.RNN, (*_RECURRENT, "nonlinearity")),
        "recurrent-stand-in": LayerKind(RecurrentStandIn, ("split", "cell_state")),
        "skipped": LayerKind(Skipped),
        "slim-attention": LayerKind(SlimAttention, from_original=True),
        "full-norm": LayerKind(FullNorm, ("kept", "full"), from_original=True),
        "activation-grid": LayerKind(ActivationGrid, ("bits",), attach=ActivationGrid.attach),
    }
)


def kind_of(layer: nn.Module) -> str | None:
    """The name of the kind of `layer`; None for one that no file can ask for."""
    return next((name for name, kind in KINDS.items() if type(layer) is kind.type), None)
