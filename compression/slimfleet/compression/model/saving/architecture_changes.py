"""Architecture changes: what turns the model that a task builds into a compressed one, as plain data.

They are found by comparing the two, so that no technique has to keep a record: layers of another kind, layers that are
gone, and attributes that differ, such as a number of heads. Shapes of tensors are those of the tensors in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from slimfleet.compression.errors import BadInput, PayloadError
from slimfleet.compression.model.saving.layer_kinds import KINDS, kind_of
from slimfleet.compression.validation import shortened

__all__ = ["Change", "changed", "changes_between", "first_names"]

Change = Mapping[str, Any]
"""JSON. `at` is the path of a layer; beside it stands one of

- `layer`, a kind, and `arguments`: the layer is made anew;
- `remove`, true: it is gone;
- `set`, attribute -> value;
- `parameters`, name -> whether the layer has one of that name;
- `tie`, name -> the path of the parameter that the layer's one of that name is too; null where it is its own.
"""

_Plain = (bool, int, float, str)


def changes_between(original: nn.Module, model: nn.Module) -> list[Change]:
    """What turns `original` into `model`, but for values and shapes of tensors.

    Raises BadInput for a new layer of a kind that no file can ask for.
    """
    made, after, changes = _Holder(deepcopy(original)), _Holder(model), []
    for change in chain(_changes(made, after, ""), _ties(made, after)):
        _apply(made, change)
        changes.append(change)
    return changes


def changed(original: nn.Module, changes: Sequence[Change], tensors: Mapping[str, Tensor]) -> nn.Module:
    """A model made from a copy of `original` that holds `tensors`, named as in its state dict.

    Raises PayloadError("architecture") where the changes do not fit the model, and PayloadError("schema") where the
    tensors do not.
    """
    holder = _Holder(deepcopy(original))
    for change in changes:
        _apply(holder, change)
    _hold(holder.model, tensors)
    return holder.model


class _Holder(nn.Module):
    """A model as a child, so that the model itself may be of another kind too."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


def _changes(before: nn.Module, after: nn.Module, at: str) -> Iterator[Change]:
    """The changes in an order in which they can be made; the reader of one makes it before the next is looked for."""
    for name, child in after.named_children():
        path = f"{at}.{name}" if at else name
        if _is_new(before._modules.get(name), child):
            yield _new_layer(path, child)
        there = before.get_submodule(name)
        if attributes := _other_attributes(there, child):
            yield {"at": path, "set": attributes}
        if (parameters := _parameters(child)) != _parameters(there):
            yield {"at": path, "parameters": parameters}
        for gone in there._modules.keys() - child._modules.keys():
            yield {"at": f"{path}.{gone}", "remove": True}
        yield from _changes(there, child, path)


def _is_new(before: nn.Module | None, after: nn.Module) -> bool:
    """Whether no change of attributes makes one layer the other: a recurrent layer knows its tensors by name."""
    return type(before) is not type(after) or (
        isinstance(after, nn.RNNBase) and before._parameters.keys() != after._parameters.keys()
    )


def _new_layer(path: str, layer: nn.Module) -> Change:
    kind = kind_of(layer)
    if kind is None:
        raise BadInput(
            f"layer {path!r} is a new {type(layer).__name__}, which a file cannot describe: it can {', '.join(KINDS)}"
        )
    return {"at": path, "layer": kind, "arguments": KINDS[kind].told(layer)}


def _other_attributes(before: nn.Module, after: nn.Module) -> dict[str, Any]:
    """Plain attributes of `after` that `before` has otherwise, or not at all."""
    had = vars(before)
    return {
        name: value
        for name, value in vars(after).items()
        if name != "training" and not name.startswith("_") and _is_plain(value)
        if name not in had or had[name] != value
    }


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(isinstance(item, _Plain) for item in value)
    return value is None or isinstance(value, _Plain)


def _parameters(layer: nn.Module) -> dict[str, bool]:
    return {name: parameter is not None for name, parameter in layer._parameters.items()}


def _ties(before: nn.Module, after: nn.Module) -> Iterator[Change]:
    """What makes the parameters that are one in `after`, and only those, one in `before`, which has the same layers."""
    had, has = first_names(before), first_names(after)
    for name, first in has.items():
        if had[name] != first:
            layer, _, own = name.rpartition(".")
            yield {"at": layer, "tie": {own: None if first == name else first}}


def first_names(model: nn.Module) -> dict[str, str]:
    """The first name of each parameter, by each of its names."""
    first: dict[nn.Parameter, str] = {}
    return {
        name: first.setdefault(parameter, name)
        for name, parameter in model.named_parameters(remove_duplicate=False)
    }


def _apply(holder: nn.Module, change: Change) -> None:
    parent_path, _, name = change["at"].rpartition(".")
    try:
        parent = holder.get_submodule(parent_path)
        there = parent._modules.get(name)
        match change:
            case {"layer": str(kind), "arguments": dict(arguments)} if kind in KINDS:
                KINDS[kind].put(parent, name, KINDS[kind].made(arguments, there))
            case {"remove": True} if there is not None:
                del parent._modules[name]
            case {"set": dict(attributes)} if there is not None:
                for attribute, value in attributes.items():
                    _set(there, attribute, value)
            case {"parameters": dict(wanted)} if there is not None:
                _set_parameters(there, wanted)
            case {"tie": dict(ties)} if there is not None and ties.keys() <= there._parameters.keys():
                for own, other in ties.items():
                    setattr(there, own, _parameter(holder, other, change))
            case _:
                raise PayloadError("architecture", f"the model cannot be changed by {shortened(str(change))}")
    except AttributeError as error:
        raise PayloadError("architecture", f"the model has no layer {change['at']!r}") from error


def _parameter(holder: nn.Module, path: object, change: Change) -> nn.Parameter:
    """The one at a path; an empty one that gets its values later where there is none."""
    if path is None:
        return nn.Parameter(torch.empty(0))
    if not isinstance(path, str):
        raise PayloadError("architecture", f"the model cannot be changed by {shortened(str(change))}")
    return holder.get_parameter(path)


def _set(layer: nn.Module, attribute: str, value: object) -> None:
    """Attributes are numbers, words or tuples of them, and never take the place of anything else."""
    value = tuple(value) if isinstance(value, list) else value
    if attribute.startswith("_") or not _is_plain(value) or not _is_plain(getattr(layer, attribute, None)):
        kind = type(layer).__name__
        raise PayloadError("architecture", f"{kind}.{attribute} cannot be set to {shortened(str(value))}")
    setattr(layer, attribute, value)


def _set_parameters(layer: nn.Module, wanted: Mapping[str, bool]) -> None:
    """A layer with these parameters, and no others; a new one is empty until it gets its values."""
    for name in layer._parameters.keys() | wanted.keys():
        if not wanted.get(name):
            layer.register_parameter(name, None)
        elif layer._parameters.get(name) is None:
            layer.register_parameter(name, nn.Parameter(torch.empty(0)))


def _hold(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors in their places, whatever their shapes; those that are one in the model stay one."""
    names = model.state_dict(keep_vars=True).keys()
    if missing := names ^ tensors.keys():
        raise PayloadError(
            "schema", f"tensor {min(missing)!r} is in the file or in the model, but not in both"
        )
    taken: dict[int, Tensor] = {}
    for path, layer in model.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        for name, held in [*layer._parameters.items(), *layer._buffers.items()]:
            if held is None or prefix + name not in names:
                continue
            new = taken.setdefault(id(held), tensors[prefix + name])
            if isinstance(held, nn.Parameter) and not isinstance(new, nn.Parameter):
                new = taken[id(held)] = nn.Parameter(new, held.requires_grad)
            setattr(layer, name, new)
        if isinstance(layer, nn.RNNBase):
            layer.flatten_parameters()
