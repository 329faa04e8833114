"""Call: one call of an operator, with the labels of its operands, which the rules look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload

from slimfleet.compression.pruning.relate import Relations
from slimfleet.compression.pruning.shadow import Labels, Shadow


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an operator, with the labels that its operands had."""

    operator: OpOverload
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Any
    shadow: Shadow
    relations: Relations
    layer: nn.Module | None
    """The layer around the call."""

    def labels(self, tensor: Tensor | None) -> Labels:
        """The labels of an operand; none for one that is left out."""
        return Labels() if tensor is None else self.shadow.read(tensor)

    def argument(self, name: str, default: Any = None) -> Any:
        """An argument by the name that the operator's schema gives it."""
        for i, parameter in enumerate(self.operator._schema.arguments):
            if parameter.name == name:
                value = self.args[i] if i < len(self.args) else self.kwargs.get(name, parameter.default_value)
                return default if value is None else value
        return default

    @property
    def name(self) -> str:
        """The operator, without its overload."""
        return name_of(self.operator)


def name_of(operator: OpOverload) -> str:
    """The name of an operator, without overload and without the underscore of one in place."""
    return str(operator).rpartition(".")[0].removeprefix("aten.").rstrip("_")


Rule = Callable[[Call], Sequence[Labels] | Labels]
"""The labels of the outputs; one for all where they are alike."""


def unknown(call: Call) -> Sequence[Labels]:
    """An operator without a rule: whatever goes in stays whole."""
    return left_whole(call, f"they go through {call.name}, which has no rule")


def left_whole(call: Call, reason: str) -> Sequence[Labels]:
    """Whatever goes in stays whole; what comes out has no channels."""
    for tensor in tensors_of_args(call.args, call.kwargs):
        call.relations.fix(call.labels(tensor), reason)
    return [Labels((), places(t.shape)) for t in tensors_of_args((call.output,), {})]


def places(shape: Sequence[int], dims: Sequence[int] | None = None) -> tuple[Tensor, ...]:
    """A numbering of the places along each of `dims`, by default all, that is longer than 1."""
    return tuple(
        places_along(shape, dim) for dim in (range(len(shape)) if dims is None else dims) if shape[dim] > 1
    )


def places_along(shape: Sequence[int], dim: int, start: int = 1) -> Tensor:
    """Integers from `start` on along `dim`, expanded to `shape`."""
    numbers = torch.arange(start, start + shape[dim])
    return numbers.reshape([-1 if d == dim else 1 for d in range(len(shape))]).expand(tuple(shape))


def tensors_of_args(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Tensor]:
    """Every tensor among arguments, in order."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_of_args(value, {})


def first_output(call: Call) -> Tensor:
    """The output of a call, or the first of several."""
    return next(tensors_of_args((call.output,), {}))
