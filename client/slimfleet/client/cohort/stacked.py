"""Stacked model: several devices' copies of one model, computed as one.

Convolutions of all devices become one grouped convolution, their channels side by side in the channels-last layout;
linear layers become one batched product. Each device keeps weights of its own, and a device's numbers depend on no
other's. What a model may consist of is listed here; of any other, `Stacked.of` makes nothing, and the plain loop trains
it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

__all__ = ["Stacked", "usual_group"]

CONVOLUTIONS_AT_ONCE, OTHERS_AT_ONCE = 4, 16
"""Devices that are trained at once. More convolutions fall out of a core's cache; without any, more pays."""

Weights = Mapping[str, Tensor]
"""Name -> [devices, *shape]."""

_ALIKE_MODULES = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Hardswish, nn.Hardtanh),
    *(nn.Tanh, nn.Sigmoid, nn.Identity),
)
_ALIKE: frozenset[Any] = frozenset(
    {
        *(functional.relu, functional.relu6, functional.leaky_relu, functional.elu, functional.silu),
        *(functional.gelu, functional.hardswish, functional.tanh, functional.sigmoid),
        *(torch.relu, torch.tanh, torch.sigmoid, operator.add, operator.mul, torch.add, torch.mul),
        *("relu", "tanh", "sigmoid"),
    }
)
"""What treats every element alike, whatever the layout."""

_POOL_MODULES = (
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
)
_POOLS: frozenset[Any] = frozenset(
    {
        *(functional.max_pool1d, functional.max_pool2d, functional.avg_pool1d, functional.avg_pool2d),
        *(functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d),
    }
)
"""What treats every channel alike."""

_CONVOLUTIONS: Mapping[type[nn.Module], Callable[..., Tensor]] = MappingProxyType(
    {nn.Conv1d: functional.conv1d, nn.Conv2d: functional.conv2d}
)


@dataclass(frozen=True, slots=True)
class Stacked:
    """A model, traced and found to consist of layers that can be stacked."""

    graph: fx.GraphModule
    deep: frozenset[str]
    """Nodes whose value is a vector an example, kept as [devices, batch, features]; all others are
    [batch, devices * channels, ...]."""

    @classmethod
    def of(cls, model: nn.Module, inputs: tuple[Tensor, ...]) -> Stacked | None:
        """The stacked form of `model`, which takes one tensor like that of `inputs`; None where it has none: it has
        buffers, frozen or shared parameters, or layers that are not known here."""
        parameters = dict(model.named_parameters(remove_duplicate=False))
        if (
            len(inputs) != 1
            or parameters.keys() != model.state_dict().keys()
            or len({id(each) for each in parameters.values()}) < len(parameters)
            or any(each.dtype != torch.float32 or not each.requires_grad for each in parameters.values())
        ):
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
        return cls(graph, frozenset(name for name, shape in shapes.of.items() if len(shape) == 2))

    def weights(self, tensors: Mapping[str, Any], devices: int) -> dict[str, Tensor]:
        """The weights `tensors` of one model, once for each of so many devices."""
        return {
            name: torch.from_numpy(array).unsqueeze(0).expand(devices, *array.shape).clone()
            for name, array in tensors.items()
        }

    def __call__(self, weights: Weights, inputs: Tensor) -> Tensor:
        """Outputs [devices, batch, ...] of inputs [devices, batch, ...]."""
        return _Run(self, weights, inputs).outputs()


class _Shapes(fx.Interpreter):
    """Shapes of all values of one model that are tensors."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.of: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.of[n.name] = tuple(value.shape)
        return value


class _Run:
    """One pass of the stacked model."""

    def __init__(self, stacked: Stacked, weights: Weights, inputs: Tensor) -> None:
        self._stacked, self._weights = stacked, weights
        self._devices, self._batch = inputs.shape[:2]
        self._inputs = inputs

    def outputs(self) -> Tensor:
        values: dict[fx.Node, Any] = {}
        for node in self._stacked.graph.graph.nodes:
            args = fx.node.map_arg(node.args, values.__getitem__)
            if node.op == "output":
                return self._as_deep(args[0])
            values[node] = self._value(node, args, fx.node.map_arg(node.kwargs, values.__getitem__))
        raise AssertionError("a traced model has an output")

    def _value(self, node: fx.Node, args: Any, kwargs: Any) -> Tensor:
        if node.op == "placeholder":
            return self._inputs if node.name in self._stacked.deep else self._as_wide(self._inputs)
        target: Any = node.target
        if node.op == "call_module":
            module = self._stacked.graph.get_submodule(target)
            if isinstance(module, nn.Linear):
                return self._linear(target, args[0])
            if type(module) in _CONVOLUTIONS:
                return self._convolution(target, module, args[0])
            if isinstance(module, nn.Flatten):
                return self._as_deep(args[0])
            return module(args[0])  # type: ignore[no-any-return]
        if target is torch.flatten or target == "flatten":
            return self._as_deep(args[0])
        if node.op == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)  # type: ignore[no-any-return]
        return target(*args, **kwargs)  # type: ignore[no-any-return]

    def _linear(self, name: str, inputs: Tensor) -> Tensor:
        weight = self._weights[f"{name}.weight"].transpose(1, 2)
        bias = self._weights.get(f"{name}.bias")
        return torch.bmm(inputs, weight) if bias is None else torch.baddbmm(bias.unsqueeze(1), inputs, weight)

    def _convolution(self, name: str, module: Any, inputs: Tensor) -> Tensor:
        weight = self._weights[f"{name}.weight"]
        bias = None if module.bias is None else self._weights[f"{name}.bias"].flatten()
        return _CONVOLUTIONS[type(module)](
            inputs,
            weight.flatten(0, 1),
            bias,
            module.stride,
            module.padding,
            module.dilation,
            module.groups * self._devices,
        )

    def _as_wide(self, value: Tensor) -> Tensor:
        """[devices, batch, channels, ...] as [batch, devices * channels, ...]; images channels-last."""
        wide = value.transpose(0, 1).flatten(1, 2)
        return wide.contiguous(memory_format=torch.channels_last) if wide.dim() == 4 else wide

    def _as_deep(self, value: Tensor) -> Tensor:
        """[batch, devices * channels, ...] as [devices, batch, features]."""
        if value.dim() == 3 and value.shape[:2] == (self._devices, self._batch):
            return value
        return value.reshape(self._batch, self._devices, -1).transpose(0, 1)


def _is_known(node: fx.Node, graph: fx.GraphModule, shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether a node of a traced model can be stacked."""
    if node.op == "placeholder":
        return len(shapes[node.name]) in (2, 3, 4)
    if node.op == "output":
        return isinstance(node.args[0], fx.Node) and len(shapes[node.args[0].name]) == 2
    arguments = [shapes.get(each.name) for each in node.all_input_nodes]
    if not arguments or None in arguments or node.name not in shapes or node.op == "get_attr":
        return False
    first, result = arguments[0], shapes[node.name]
    assert first is not None
    target: Any = node.target
    if node.op == "call_module":
        module = graph.get_submodule(target)
        if type(module) in _CONVOLUTIONS:
            return module.padding_mode == "zeros" and len(first) == len(result) == (
                3 if type(module) is nn.Conv1d else 4
            )
        if type(module) is nn.Linear:
            return len(first) == 2
        if type(module) is nn.Flatten:
            return module.start_dim == 1 and module.end_dim in (-1, len(first) - 1) and len(first) > 2
        return type(module) in _ALIKE_MODULES or (type(module) in _POOL_MODULES and len(first) > 2)
    if target is torch.flatten or target == "flatten":
        return tuple(node.args[1:]) in ((1,), (1, -1)) and not node.kwargs and len(first) > 2
    if target in _ALIKE:
        return all(shape == first for shape in arguments)
    return target in _POOLS and len(first) > 2


def usual_group(model: nn.Module) -> int:
    """How many devices are trained at once by default."""
    convolves = any(type(module) in _CONVOLUTIONS for module in model.modules())
    return CONVOLUTIONS_AT_ONCE if convolves else OTHERS_AT_ONCE
