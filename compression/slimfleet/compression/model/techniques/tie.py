"""Tied layers: layers of one stack share their weights, so that they are kept once.

Layers of equal shapes become one layer that is applied again and again (Universal Transformer, Dehghani et al. 2019,
arXiv 1807.03819; ALBERT, Lan et al. 2020, arXiv 1909.11942, section 3.1). The work stays the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Gt
from torch import nn

from slimfleet.compression.model.architectures.fitting import Call
from slimfleet.compression.model.architectures.replacing import replace_layers
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.technique import TechniqueReport
from slimfleet.compression.model.training.tuning import Tuning

__all__ = ["Tie", "tie"]

Owned = tuple[nn.Module, str]
"""A parameter, as a layer and the name that it has there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tie:
    """Settings of `tie`."""

    partly: bool = False
    """Recurrent layers of one stack also share single tensors of equal shapes, where their inputs differ in size."""
    worst_fit: Annotated[float, Gt(0)] = 1.0
    """Squared error of a tied stack, as a share of the variance of its outputs before, above which it stays."""
    tuning: Tuning = field(default_factory=lambda: Tuning(soft_labels=0.7))


def tie(slim: SlimModel, central: CentralTask, settings: Tie) -> tuple[SlimModel, TechniqueReport]:
    """Tie the layers of recurrent stacks, and of lists of Transformer encoder layers, that have equal shapes.

    Raises BadInput where there are none.
    """

    def stand(layer: nn.Module, calls: Sequence[Call], read: Sequence[bool]) -> nn.Module | str:
        new = deepcopy(layer)
        sets = list(_alike(new, settings.partly))
        for first, *others in sets:
            for owner, name in others:
                setattr(owner, name, first[0].get_parameter(first[1]))
        return new if sets else "its layers have different shapes"

    return replace_layers(slim, central, "tie", _is_stack, stand, settings)


def _is_stack(layer: nn.Module) -> bool:
    return layer.num_layers > 1 if isinstance(layer, nn.RNNBase) else any(map(_is_list, layer.children()))


def _is_list(layer: nn.Module) -> bool:
    """Whether it has two Transformer encoder layers or more."""
    found = [child for child in layer.children() if isinstance(child, nn.TransformerEncoderLayer)]
    return isinstance(layer, nn.ModuleList | nn.Sequential) and len(found) > 1


def _alike(stack: nn.Module, partly: bool) -> Iterator[list[Owned]]:
    """Parameters that can be one, in the order of the layers."""
    if isinstance(stack, nn.RNNBase):
        for reverse in ("", "_reverse") if stack.bidirectional else ("",):
            layers: list[dict[str, Owned]] = [
                {
                    name.removesuffix(f"_l{number}{reverse}"): (stack, name)
                    for name in stack._parameters
                    if name.endswith(f"_l{number}{reverse}")
                }
                for number in range(stack.num_layers)
            ]
            yield from _of_equal_shapes(layers, partly)
    for layer_list in filter(_is_list, stack.children()):
        encoders = [child for child in layer_list.children() if isinstance(child, nn.TransformerEncoderLayer)]
        yield from _of_equal_shapes([_owned(encoder) for encoder in encoders], False)


def _owned(layer: nn.Module) -> dict[str, Owned]:
    return {
        f"{path}.{name}": (module, name)
        for path, module in layer.named_modules()
        for name, parameter in module._parameters.items()
        if parameter is not None
    }


def _of_equal_shapes(layers: Sequence[dict[str, Owned]], partly: bool) -> Iterator[list[Owned]]:
    """For each role of a parameter, those of the layers that have equal shapes."""
    for role in layers[0]:
        sets = defaultdict(list)
        for layer in layers:
            shape = _shape(layer[role]) if partly else tuple(map(_shape, layer.values()))
            sets[shape].append(layer[role])
        yield from (each for each in sets.values() if len(each) > 1)


def _shape(owned: Owned) -> tuple[int, ...]:
    return tuple(owned[0].get_parameter(owned[1]).shape)
