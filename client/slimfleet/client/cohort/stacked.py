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
from slimfleet.client.cohort.layouts import Value
from slimfleet.client.cohort.losses import Loss, loss_of_several
from slimfleet.client.cohort.reordering import relus_moved_back

__all__ = ["Stacked"]

Shape = tuple[int, ...]
_Step = Callable[[Sequence[Value], Own], Value]
"""The next value, from those before it and the tensors of the whole model."""

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

    program: Sequence[_Step]
    """One a node of the traced model; the last gives the outputs."""
    loss: Loss
    """Of all devices."""

    @classmethod
    def of(cls, model: torch.nn.Module, loss: Loss, inputs: tuple[Tensor, ...]) -> Stacked | None:
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
        if not all(_is_known(node, graph, shapes.of) for node in graph.graph.nodes):
            return None
        relus_moved_back(graph)
        return cls(_program(graph), loss_of_several(loss))

    def losses(self, state: Own, inputs: Sequence[Tensor], targets: Tensor) -> Tensor:
        """Losses [devices] of inputs and targets [devices, batch, ...], with the tensors `state` of the whole model."""
        values = [Value(inputs[0], wide=False, devices=len(targets))]
        for step in self.program:
            values.append(step(values, state))
        return self.loss(values[-1].as_deep(), targets)


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


def _program(graph: fx.GraphModule) -> list[_Step]:
    """What computes the value of each node but the input from the values before it."""
    nodes = {node: place for place, node in enumerate(graph.graph.nodes)}
    return [_step(graph, node, nodes) for node in nodes if node.op != "placeholder"]


def _step(graph: fx.GraphModule, node: fx.Node, places: Mapping[fx.Node, int]) -> _Step:
    given = [places[each] for each in node.all_input_nodes]
    first = given[0]
    if node.op == "output":
        return lambda values, state: values[first]
    if node.op == "call_module":
        return _of_layer(str(node.target), graph.get_submodule(str(node.target)), first)
    if node.target in _FLATTEN:
        return lambda values, state: _flat(values[first])
    if node.target in _TRANSPOSE:
        one, other = (each + 1 for each in _dimensions(node))
        return lambda values, state: _transposed(values[first], one, other)
    return _of_function(node, places)


def _of_layer(name: str, module: Any, place: int) -> _Step:
    if isinstance(module, torch.nn.Flatten):
        return lambda values, state: _flat(values[place])
    kind = LAYERS[type(module)]
    names = [(key, f"{name}.{key}") for key in (*module._parameters, *module._buffers)]

    def step(values: Sequence[Value], state: Own) -> Value:
        given = values[place]
        wide = given.wide if kind.layout == "either" else kind.layout == "wide"
        own = {key: state[full] for key, full in names if full in state}
        made = kind.compute(module, own, given.as_wide() if wide else given.as_deep(), given.devices)
        return Value(made, wide, given.devices)

    return step


def _of_function(node: fx.Node, places: Mapping[fx.Node, int]) -> _Step:
    target: Any = node.target
    by_channel = target in _POOLS or target in _MEAN
    inputs = {each: places[each] for each in node.all_input_nodes}

    def step(values: Sequence[Value], state: Own) -> Value:
        given = {each: values[place] for each, place in inputs.items()}
        wide = by_channel or any(each.wide for each in given.values())
        tensors = {each: its.as_wide() if wide else its.as_deep() for each, its in given.items()}
        args: Any = fx.node.map_arg(node.args, tensors.__getitem__)
        kwargs: Any = fx.node.map_arg(node.kwargs, tensors.__getitem__)
        function = getattr(type(args[0]), target) if node.op == "call_method" else target
        return Value(function(*args, **kwargs), wide, next(iter(given.values())).devices)

    return step


def _transposed(given: Value, one: int, other: int) -> Value:
    return Value(given.as_deep().transpose(one, other), wide=False, devices=given.devices)


def _flat(given: Value) -> Value:
    """[devices, batch, features]"""
    return Value(given.as_deep().flatten(2), wide=False, devices=given.devices)


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
