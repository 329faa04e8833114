"""Stacked model: several devices' copies of one model, computed as one.

Convolutions of all devices become one grouped convolution, their channels side by side in the channels-last layout;
linear layers become one batched product (`layers.py`). Each device keeps weights of its own, and a device's numbers
depend on no other's. What a model may consist of is listed here and there; of any other, `Stacked.of` makes nothing.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from slimfleet.client.cohort.layers import LAYERS, Own

__all__ = ["Stacked"]

Shape = tuple[int, ...]

_ALIKE: frozenset[Any] = frozenset(
    {
        *(functional.relu, functional.relu6, functional.leaky_relu, functional.elu, functional.silu),
        *(functional.gelu, functional.hardswish, functional.tanh, functional.sigmoid),
        *(torch.relu, torch.tanh, torch.sigmoid, operator.add, operator.mul, torch.add, torch.mul),
        *("relu", "tanh", "sigmoid"),
    }
)
"""What treats every element alike, whatever the layout."""

_POOLS: frozenset[Any] = frozenset(
    {
        *(functional.max_pool1d, functional.max_pool2d, functional.avg_pool1d, functional.avg_pool2d),
        *(functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d),
    }
)
"""What treats every channel alike."""

_FLATTEN: frozenset[Any] = frozenset({torch.flatten, "flatten"})
_MEAN: frozenset[Any] = frozenset({torch.mean, "mean"})
_TRANSPOSE: frozenset[Any] = frozenset({torch.transpose, "transpose"})


@dataclass(frozen=True, slots=True)
class Stacked:
    """A model, traced and found to consist of layers that can be stacked."""

    graph: fx.GraphModule
    loss: Callable[[Tensor, Tensor], Tensor]
    """Of one device's outputs and targets."""

    @classmethod
    def of(
        cls, model: torch.nn.Module, loss: Callable[[Tensor, Tensor], Tensor], inputs: tuple[Tensor, ...]
    ) -> Stacked | None:
        """The stacked form of `model`, which takes one tensor like that of `inputs`; None where it has none. The
        buffers of the model may have changed afterwards."""
        if len(inputs) != 1:
            return None
        try:
            graph = fx.symbolic_trace(model)
            shapes = _Shapes(graph)
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                shapes.run(*inputs)
        except Exception:  # noqa: BLE001 - a foreign forward may raise anything while it is traced; the loop takes it
            return None
        known = all(_is_known(node, graph, shapes.of) for node in graph.graph.nodes)
        return cls(graph, loss) if known else None

    def losses(self, state: Own, inputs: Sequence[Tensor], targets: Tensor) -> Tensor:
        """Losses [devices] of inputs and targets [devices, batch, ...], with the tensors `state` of the whole model."""
        return torch.func.vmap(self.loss, randomness="error")(_outputs(self.graph, state, inputs[0]), targets)


class _Shapes(fx.Interpreter):
    """Shapes of all values of one model that are tensors."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.of: dict[str, Shape] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.of[n.name] = tuple(value.shape)
        return value


@dataclass(frozen=True, slots=True)
class _Value:
    """What a node gives for all devices, in one of the layouts of `layers.py`."""

    tensor: Tensor
    wide: bool
    devices: int

    def as_wide(self) -> Tensor:
        if self.wide:
            return self.tensor
        wide = self.tensor.transpose(0, 1).flatten(1, 2)
        return wide.contiguous(memory_format=torch.channels_last) if wide.dim() == 4 else wide

    def as_deep(self) -> Tensor:
        if not self.wide:
            return self.tensor
        return self.tensor.reshape(len(self.tensor), self.devices, -1, *self.tensor.shape[2:]).transpose(0, 1)


def _outputs(graph: fx.GraphModule, state: Own, inputs: Tensor) -> Tensor:
    """Outputs [devices, batch, ...] of one pass."""
    values: dict[fx.Node, Any] = {}
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            values[node] = _Value(inputs, wide=False, devices=len(inputs))
        elif node.op == "output":
            output: Tensor = values[node.args[0]].as_deep()
            return output
        elif node.op == "call_module":
            values[node] = _of_layer(graph, node.target, state, values[node.args[0]])
        else:
            values[node] = _of_function(node, values)
    raise AssertionError("a traced model has an output")


def _of_layer(graph: fx.GraphModule, name: str, state: Own, given: _Value) -> _Value:
    module: Any = graph.get_submodule(name)
    if isinstance(module, torch.nn.Flatten):
        return _Value(_flat(given), wide=False, devices=given.devices)
    kind = LAYERS[type(module)]
    wide = given.wide if kind.layout == "either" else kind.layout == "wide"
    own = {
        key: state[f"{name}.{key}"]
        for key in (*module._parameters, *module._buffers)
        if f"{name}.{key}" in state
    }
    made = kind.compute(module, own, given.as_wide() if wide else given.as_deep(), given.devices)
    return _Value(made, wide, given.devices)


def _of_function(node: fx.Node, values: Mapping[fx.Node, _Value]) -> _Value:
    target: Any = node.target
    given = [values[each] for each in node.all_input_nodes]
    devices = given[0].devices
    if target in _FLATTEN:
        return _Value(_flat(given[0]), wide=False, devices=devices)
    if target in _TRANSPOSE:
        first, second = _dimensions(node)
        return _Value(given[0].as_deep().transpose(first + 1, second + 1), wide=False, devices=devices)
    wide = target in _POOLS or target in _MEAN or any(each.wide for each in given)
    tensors = {
        each: values[each].as_wide() if wide else values[each].as_deep() for each in node.all_input_nodes
    }
    args: Any = fx.node.map_arg(node.args, tensors.__getitem__)
    kwargs: Any = fx.node.map_arg(node.kwargs, tensors.__getitem__)
    function = getattr(type(args[0]), target) if node.op == "call_method" else target
    return _Value(function(*args, **kwargs), wide, devices)


def _flat(given: _Value) -> Tensor:
    """[devices, batch, features]"""
    if not given.wide:
        return given.tensor.flatten(2)
    return given.tensor.reshape(len(given.tensor), given.devices, -1).transpose(0, 1)


def _dimensions(node: fx.Node) -> tuple[int, ...]:
    """Those that a mean or a transposition is about; none where they are not plainly told."""
    if not node.kwargs.keys() <= {"dim"}:
        return ()
    told: Any = (*node.args[1:], *node.kwargs.values())
    listed = told[0] if len(told) == 1 and isinstance(told[0], tuple | list) else told
    return tuple(listed) if all(type(each) is int for each in listed) else ()


def _is_known(node: fx.Node, graph: fx.GraphModule, shapes: Mapping[str, Shape]) -> bool:
    """Whether a node of a traced model can be stacked."""
    if node.op == "placeholder":
        return len(shapes[node.name]) in (2, 3, 4)
    if node.op == "output":
        return isinstance(node.args[0], fx.Node) and len(shapes[node.args[0].name]) == 2
    arguments = [shapes.get(each.name) for each in node.all_input_nodes]
    if not arguments or None in arguments or node.name not in shapes or node.op == "get_attr":
        return False
    first, made = arguments[0], shapes[node.name]
    assert first is not None
    target: Any = node.target
    if node.op == "call_module":
        module: Any = graph.get_submodule(target)
        if type(module) is torch.nn.Flatten:
            return module.start_dim == 1 and module.end_dim in (-1, len(first) - 1) and len(first) > 2
        kind = LAYERS.get(type(module))
        return kind is not None and kind.fits(module, first, made)
    if target in _FLATTEN:
        return tuple(node.args[1:]) in ((1,), (1, -1)) and not node.kwargs and len(first) > 2
    if target in _TRANSPOSE:
        return len(_dimensions(node)) == 2 and min(_dimensions(node)) > 0
    if target in _MEAN:
        # Over places, never over channels.
        return bool(_dimensions(node)) and min(_dimensions(node)) > 1
    if target in _ALIKE:
        return all(shape == first for shape in arguments)
    return target in _POOLS and len(first) > 2
