"""Replacing layers: each by a cheaper one that is fitted to it, and then the model trains on what it said before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Protocol

import torch
from torch import nn

from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.architectures.fitting import Call, calls_of, fitted, outputs_read
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.technique import LayerChange, TechniqueReport
from slimfleet.compression.model.training.teachers import Teachers
from slimfleet.compression.model.training.tuning import Tuner, Tuning
from slimfleet.compression.pruning.removable import in_a_line

__all__ = ["Replacement", "Stand", "replace_layers", "replaced", "taught", "why_it_fails"]


class Replacement(Protocol):
    """What the settings of all techniques that replace layers have."""

    @property
    def worst_fit(self) -> float:
        """Squared error of a new layer, as a share of the variance of the old one's outputs, above which the old one
        stays."""
        ...

    @property
    def tuning(self) -> Tuning:
        """The training after it."""
        ...


Stand = Callable[[nn.Module, Sequence[Call], Sequence[bool]], nn.Module | str]
"""From a layer, its calls and which of its outputs are read: what is to take its place, or why nothing can."""


def replace_layers(
    slim: SlimModel,
    central: CentralTask,
    technique: str,
    concerns: Callable[[nn.Module], bool],
    stand: Stand,
    settings: Replacement,
) -> tuple[SlimModel, TechniqueReport]:
    """Replace the layers that a technique concerns, then train; soft labels are of the model as it was, where the
    central task has no teacher. Raises BadInput where none can be replaced."""
    original = slim.unconstrained(technique)
    model, changed, whole = deepcopy(original), [], []
    paths = [path for path, layer in original.named_modules() if concerns(layer)]
    for number, path in enumerate(paths):
        central.progress(f"{technique}: fitting layers", number, len(paths))
        new = _stand_in(model, path, central, stand)
        if isinstance(new, str):
            whole.append(LayerChange(path, new))
            continue
        layer, error = new
        if error > settings.worst_fit:
            whole.append(LayerChange(path, f"its fit is {error:.0%} off, more than {settings.worst_fit:.0%}"))
            continue
        before = model.get_submodule(path)
        model = replaced(model, path, layer)
        changed.append(
            LayerChange(path, f"{_size(before)} -> {_size(layer)} parameters, fit {error:.1%} off")
        )
    if not changed:
        reasons = "; ".join(f"{each.layer}: {each.change}" for each in whole) or "it has none of the kind"
        raise BadInput(f"{technique} finds no layer that it can replace: {reasons}")
    tuned, done = Tuner(SlimModel(model), taught(original, central), settings.tuning, technique).finish()
    return tuned, TechniqueReport(changed=tuple(changed), whole=tuple(whole), steps=done.steps)


def _stand_in(
    model: nn.Module, path: str, central: CentralTask, stand: Stand
) -> tuple[nn.Module, float] | str:
    """The fitted layer and its error, or why there is none."""
    layer = model.get_submodule(path)
    if any(times > 1 for parameter, times in _uses(model).items() if parameter in set(layer.parameters())):
        return "its weights are those of another layer too"
    calls = calls_of(model, path, central)
    if not calls:
        return "the model does not call it"
    several = len(calls[0].outputs) > 1
    read = outputs_read(model, path, central.example_inputs) if several else (True,)
    new = stand(layer, calls, read)
    if isinstance(new, str):
        return new
    new.eval()
    failure = why_it_fails(replaced(model, path, new), central)
    return failure or fitted(new, calls, central.seed, read)


def _uses(model: nn.Module) -> Counter[nn.Parameter]:
    return Counter(p for _, p in model.named_parameters(remove_duplicate=False))


def _size(layer: nn.Module) -> str:
    return f"{sum(p.numel() for p in layer.parameters()):,}"


def why_it_fails(model: nn.Module, central: CentralTask) -> str | None:
    """Why a changed model does not run on the example inputs; None where it does."""
    try:
        with torch.no_grad():
            deepcopy(model).eval()(*central.example_inputs)
    except Exception as error:  # noqa: BLE001 - a user's forward pass may read any attribute of the layer
        return f"the model does not run with another in its place: {in_a_line(error)}"
    return None


def replaced(model: nn.Module, path: str, new: nn.Module) -> nn.Module:
    """A copy of `model` with `new` in all places of the layer at `path`.

    Transformer layers above it take torch's fused path no more, since that reads weights past the layers that hold
    them.
    """
    if not path:
        return new
    model = deepcopy(model)
    old = model.get_submodule(path)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child is old:
                setattr(parent, name, new)
    for above in model.modules():
        if new in set(above.modules()):
            if isinstance(above, nn.TransformerEncoderLayer):
                above.activation_relu_or_gelu = 0
            elif isinstance(above, nn.TransformerEncoder):
                above.use_nested_tensor = False
    return model


def taught(original: nn.Module, central: CentralTask) -> CentralTask:
    """The central task with its teachers, or else with the model as it was for one."""
    return central if central.teachers else replace(central, teachers=Teachers((deepcopy(original).eval(),)))
