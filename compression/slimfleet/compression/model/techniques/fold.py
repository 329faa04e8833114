"""Batch-norm folding: in evaluation a batch normalisation is a scale and a shift, which the layer before it can take in
(Jacob et al. 2018, arXiv 1712.05877, section 3.2). Exact, and what integer runtimes expect before quantisation.

Weights on a grid stay on it: its steps, one for each output channel, take the scale.

Which layer stands right before which normalisation, a forward pass shows. Each pair is tried: where the outputs of the
model change, because something else reads what lies between the two, both are left whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.constraints import Constraint, Grid, Shared
from slimfleet.compression.model.evaluation.divergence import squared_difference
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.technique import LayerChange, TechniqueReport
from slimfleet.compression.pruning.nested import tensors_in

__all__ = ["Fold", "fold"]

EXAMPLES = 16
"""Training examples that a pair is tried on."""

TOLERANCE = 1e-8
"""Mean squared difference of the outputs, relative to their mean square, that rounding in float32 explains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """`fold` has no settings."""


def fold(slim: SlimModel, central: CentralTask, settings: Fold) -> tuple[SlimModel, TechniqueReport]:
    """Take batch normalisations into the convolutions and linear layers right before them, which gain a bias.

    Raises BadInput where the model has no batch normalisation.
    """
    model, constraints = deepcopy(slim.model).eval(), dict(slim.constraints)
    norms = [path for path, layer in model.named_modules() if isinstance(layer, _BatchNorm)]
    if not norms:
        raise BadInput("fold finds no batch normalisation in the model: leave it out")
    inputs = central.training.take(slice(EXAMPLES)).arguments
    before = _layers_before(model, inputs)
    changed, whole = [], []
    for norm in norms:
        pair = before.get(norm)
        reason = _unfit(model, norm, pair, constraints)
        if reason is None and pair is not None:
            folded, constraint = _folded(model, pair, norm, constraints.get(f"{pair}.weight"))
            if _alike(folded, model, inputs):
                model = folded
                if constraint is not None:
                    constraints[f"{pair}.weight"] = constraint
                changed.append(LayerChange(norm, f"folded into {pair}"))
                continue
            reason = f"what {pair} gives is read elsewhere too"
        whole.append(LayerChange(norm, reason or ""))
    return SlimModel(model, constraints), TechniqueReport(changed=tuple(changed), whole=tuple(whole))


def _layers_before(model: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, str]:
    """Path of a normalisation -> that of the layer whose output is its input, both called once."""
    made: dict[
        int, tuple[str, Tensor]
    ] = {}  # the tensors too: an address is used again once its tensor is gone
    read: dict[str, str] = {}
    calls: Counter[str] = Counter()
    hooks = []

    def wrote(path: str, output: Any) -> None:
        calls[path] += 1
        made[id(output)] = (path, output)

    def reads(path: str, x: Any) -> None:
        calls[path] += 1
        if id(x) in made:
            read[path] = made[id(x)][0]

    for path, layer in model.named_modules():
        if isinstance(layer, _ConvNd | nn.Linear):
            hooks.append(layer.register_forward_hook(lambda _, __, output, path=path: wrote(path, output)))
        elif isinstance(layer, _BatchNorm):
            hooks.append(layer.register_forward_pre_hook(lambda _, given, path=path: reads(path, given[0])))
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return {norm: layer for norm, layer in read.items() if calls[norm] == calls[layer] == 1}


def _unfit(
    model: nn.Module, norm: str, layer: str | None, constraints: Mapping[str, Constraint]
) -> str | None:
    """Why a normalisation cannot be folded; None where it may be tried."""
    if layer is None:
        return "no convolution or linear layer stands right before it, alone and once"
    if model.get_submodule(norm).running_mean is None:
        return "it has no running statistics"
    before = model.get_submodule(layer)
    if isinstance(before, _ConvNd) and before.transposed and before.groups > 1:
        return f"{layer} is a transposed convolution in groups"
    constraint = constraints.get(f"{layer}.weight")
    if isinstance(constraint, Shared):
        return f"the weights of {layer} are shared: fold before share"
    if isinstance(constraint, Grid) and isinstance(before, _ConvNd) and before.transposed:
        return f"{layer} is a transposed convolution on a grid: fold before quantise"
    return None


def _folded(
    model: nn.Module, path: str, norm_path: str, constraint: Constraint | None
) -> tuple[nn.Module, Constraint | None]:
    """A copy of `model` without the normalisation, and what the weights of the layer obey then."""
    copied = deepcopy(model)
    layer, norm = copied.get_submodule(path), copied.get_submodule(norm_path)
    assert isinstance(layer, _ConvNd | nn.Linear)
    assert isinstance(norm, _BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        scale = (norm.running_var.double() + norm.eps).rsqrt()
        scale = scale * norm.weight.double() if norm.affine else scale
        shift = norm.bias.double() if norm.affine else torch.zeros_like(scale)
        bias = torch.zeros_like(scale) if layer.bias is None else layer.bias.double()
        channels = [1] * layer.weight.dim()
        channels[1 if isinstance(layer, _ConvNd) and layer.transposed else 0] = -1
        constraint = _scaled(constraint, scale.view(channels).float())
        layer.weight.copy_(layer.weight.double() * scale.view(channels))
        if isinstance(constraint, Grid):
            layer.weight.copy_(constraint.obeyed(layer.weight))
        new = ((bias - norm.running_mean.double()) * scale + shift).to(layer.weight.dtype)
    layer.register_parameter("bias", nn.Parameter(new, layer.weight.requires_grad))
    parent, _, name = norm_path.rpartition(".")
    setattr(copied.get_submodule(parent), name, nn.Identity())
    return copied, constraint


def _scaled(constraint: Constraint | None, scale: Tensor) -> Constraint | None:
    """What weights times `scale`, one factor a channel, obey: the levels of a grid stay, its steps take the factor."""
    if not isinstance(constraint, Grid):
        return constraint
    size = torch.where(scale == 0, 1.0, scale.abs())
    low = torch.where(scale < 0, -constraint.high, constraint.low)
    high = torch.where(scale < 0, -constraint.low, constraint.high)
    return replace(constraint, step=constraint.step * size, low=low, high=high)


def _alike(folded: nn.Module, model: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    with torch.no_grad():
        ours, theirs = folded(*inputs), model(*inputs)
    power = sum(float(x.square().mean()) for x in tensors_in(theirs) if x.is_floating_point())
    return float(squared_difference(ours, theirs)) <= TOLERANCE * power
