"""Dependencies between channels of convolutions, linear layers and norms, by torch-pruning, which only this file uses.

torch-pruning traces the autograd graph and answers, for one output channel of one layer, which channels of
which other layers must go with it (DepGraph, Fang et al., CVPR 2023). Its answers for single channels are
joined here, which gets right what its own whole groups do not: channels coupled to one another (gates made
by `chunk`, grouped convolutions, group norms) become one channel.
"""

from __future__ import annotations

import torch_pruning
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from slimfleet.compression.pruning.coupling import FIXED, Coupling, Site
from slimfleet.compression.pruning.groups import ChannelGroup
from slimfleet.compression.pruning.layers import input_side, output_side, owned_positions
from slimfleet.compression.pruning.nested import tensors_in
from slimfleet.compression.pruning.opaque import OpaquePruner, hidden_inside, opaque_layers


def dependency_groups(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[ChannelGroup]:
    """Groups rooted in the convolutions and linear layers of `model`, which must be in evaluation mode.

    Channels that reach an output, a layer norm, an embedding, a bare parameter or the inside of an opaque
    layer are in no group.
    """
    graph = _trace(model, inputs)
    sites = _Sites(model)
    coupling = Coupling()
    visited: set[tuple[object, int]] = set()
    for layer in model.modules():
        if not isinstance(layer, _ConvNd | nn.Linear) or layer not in graph.module2node:
            continue
        pruner = graph.get_pruner_of_module(layer)
        for channel in range(pruner.get_out_channels(layer)):
            if (layer, channel) in visited:
                continue
            coupled = []
            for dependency, channels in graph.get_pruning_group(layer, pruner.prune_out_channels, [channel]):
                target = dependency.target.module
                is_output = graph.is_out_channel_pruning_fn(dependency.handler)
                coupled += [site for c in channels for site in sites.of(target, is_output, c)]
                if is_output:
                    visited.update((target, c) for c in channels)
            coupling.join(coupled)
    return coupling.groups(list(model.state_dict()))


def _trace(model: nn.Module, inputs: tuple[Tensor, ...]) -> torch_pruning.DependencyGraph:
    layers = opaque_layers(model)
    with hidden_inside(layers):
        return torch_pruning.DependencyGraph().build_dependency(
            model,
            inputs,
            forward_fn=lambda model, inputs: model(*inputs),
            # One more step behind the last layer is what torch-pruning recognises as the output.
            output_transform=lambda output: [t * 1 for t in tensors_in(output) if t.requires_grad],
            customized_pruners={type(layer): OpaquePruner() for layer in layers},
            verbose=False,
        )


class _Sites:
    """What single channels of the layers of a model own in its state dict."""

    def __init__(self, model: nn.Module) -> None:
        self._paths: dict[object, str] = {module: name for name, module in model.named_modules()}
        self._shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}

    def of(self, node: object, is_output: bool, channel: int) -> list[Site]:
        """What `channel` of one side of a node of the graph owns; `FIXED` for what must stay whole."""
        if node in self._paths:
            assert isinstance(node, nn.Module)
            return self._of_layer(node, is_output, channel)
        ends_here = isinstance(node, nn.Parameter | torch_pruning.ops._OutputOp)
        return [FIXED] if ends_here else []

    def _of_layer(self, layer: nn.Module, is_output: bool, channel: int) -> list[Site]:
        side = output_side(layer) if is_output else input_side(layer)
        if side is None:
            return [FIXED]
        owned = owned_positions(layer, is_output, channel)
        sites = [(f"{self._paths[layer]}.{name}", dim, position) for name, dim in side for position in owned]
        known = all(tensor in self._shapes and p < self._shapes[tensor][dim] for tensor, dim, p in sites)
        return sites if known else [FIXED]
