"""Opaque layers: the tracer must not look into them, so each becomes one node of the autograd graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from slimfleet.compression.pruning.nested import map_tensors, tensors_in

_OPAQUE = (
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
    nn.TransformerEncoder,
    nn.TransformerDecoder,
    nn.Transformer,
)


class OpaquePruner:
    """Tells torch-pruning that an opaque layer has two sides and that nothing passes between them."""

    pruning_dim = 1

    def prune_out_channels(self, layer: nn.Module, indices: Sequence[int]) -> nn.Module:
        """Prunes nothing; its identity marks the output side."""
        return layer

    def prune_in_channels(self, layer: nn.Module, indices: Sequence[int]) -> nn.Module:
        """Prunes nothing; its identity marks the input side."""
        return layer

    def get_out_channels(self, layer: nn.Module) -> None:
        """Not known."""

    def get_in_channels(self, layer: nn.Module) -> None:
        """Not known."""


def opaque_layers(model: nn.Module) -> list[nn.Module]:
    """The outermost recurrent, attention and Transformer layers of `model`."""
    if isinstance(model, _OPAQUE):
        return [model]
    return [layer for child in model.children() for layer in opaque_layers(child)]


@contextmanager
def hidden_inside(layers: Sequence[nn.Module]) -> Iterator[None]:
    """While open, the autograd graph leads from the outputs of each layer to its first input in one step."""
    with ExitStack() as hooks:
        for layer in layers:
            hooks.callback(layer.register_forward_hook(_one_step, with_kwargs=True).remove)
        yield


def _one_step(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    source = next((t for t in tensors_in([args, kwargs]) if t.requires_grad), None)
    plain = [tensor.detach() for tensor in tensors_in(output)]
    if source is None:
        return map_tensors(Tensor.detach, output)
    stepped = iter(_Step.apply(source, *plain))  # type: ignore[no-untyped-call]
    return map_tensors(lambda _: next(stepped), output)


class _Step(torch.autograd.Function):
    """Copies of the outputs that depend on `source` and on nothing else; never differentiated."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, *outputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(output.clone() for output in outputs)
