"""Nested values: the tensors in what a module takes or returns (packed sequences, tuples, dicts, dataclasses)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


def tensors_in(value: object) -> Iterator[Tensor]:
    """Every tensor in `value`, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, PackedSequence):
        yield value.data
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))
    elif is_dataclass(value) and not isinstance(value, type):
        yield from tensors_in([getattr(value, each.name) for each in fields(value)])


def map_tensors(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """`value` with every tensor replaced by `change(tensor)`."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, PackedSequence):
        return value._replace(data=change(value.data))
    if isinstance(value, tuple) and hasattr(value, "_make"):
        return value._make(map_tensors(change, item) for item in value)
    if isinstance(value, tuple | list):
        return type(value)(map_tensors(change, item) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{each.name: map_tensors(change, getattr(value, each.name)) for each in fields(value)}
        )
    if isinstance(value, dict):
        return {key: map_tensors(change, item) for key, item in value.items()}
    return value
