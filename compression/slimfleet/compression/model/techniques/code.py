"""Coding: weights take the values that the file's coder holds in the fewest bytes, without any training.

Matrices become levels of a trellis, chosen at the prices of the coder (rate-distortion optimised, as updates are). The
more the outputs change with an error in a tensor, the finer is its step, so that a bit buys as much in each (Shoham and
Gersho 1988, doi 10.1109/29.90373). Vectors, of which each value acts on a whole channel, keep few bits of their
mantissas, and so do the steps of grids and the values of codebooks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from math import log2
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, Lt
from numpy.typing import NDArray
from torch import Tensor

from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.constraints import Constraint, Frozen, Grid, Mask
from slimfleet.compression.model.sensitivity import sensitivities_of_tensors
from slimfleet.compression.model.slim_model import SlimModel, weights_of
from slimfleet.compression.model.technique import Curve, LayerChange, Plot, TechniqueReport
from slimfleet.compression.model.threshold import points_lost
from slimfleet.compression.packing import trellis_levels
from slimfleet.compression.packing.dtypes import FLOAT32
from slimfleet.compression.packing.rounding import rounded

__all__ = ["Code", "code", "shortened"]

FEW = 256
"""Weights below which a tensor keeps short values instead."""

PROBED = 0.01
"""Squared error of a tensor alone, over its squares, at which its outputs are compared."""

TRIES = 12
FINEST, COARSEST = 2.0**-10, 4.0
"""Steps, over the root mean square of a tensor's weights, between which a search stays."""

Arrays = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """Settings of `code`."""

    nmse: Annotated[float, Gt(0), Lt(1)] = 1e-3
    """Squared error of all matrices together, over their squares."""
    bits: Annotated[float, Ge(0), Le(16)] = 0.0
    """Bits that a weight of a matrix may take; in place of `nmse` where above 0."""
    loss: Annotated[float, Gt(0), Le(100)] | None = None
    """Points of validation accuracy (percent of the loss, where a task has no accuracy) that may be lost; in place of
    both."""
    sensitive: bool = True
    """Whether tensors to which the outputs are more sensitive get finer steps; else all err by the same share."""
    vectors: Annotated[int, Ge(1), Le(23)] = 7
    """Bits of the mantissa that vectors, steps and shared values keep."""


@dataclass(frozen=True, slots=True)
class _Trial:
    """Matrices as levels, at one scale of the steps."""

    made: dict[str, Frozen]
    bytes: int
    nmse: float


def code(slim: SlimModel, central: CentralTask, settings: Code) -> tuple[SlimModel, TechniqueReport]:
    """Levels for tensors of two or more dimensions that obey no constraint or a mask; short values for all others.

    Raises BadInput where not even the finest steps keep to `loss`.
    """
    arrays = {
        name: weight.detach().numpy().astype(np.float32, order="C")
        for name, weight in weights_of(slim.model).items()
        if isinstance(slim.constraints.get(name), Mask | None)
        and weight.numel() >= FEW
        and bool(weight.any())
    }
    coded = shortened(slim, settings.vectors, set(arrays))
    plots: Mapping[str, Plot] = {}
    changed: list[LayerChange] = []
    if arrays:
        relative = _rms(arrays)
        if settings.sensitive:
            relative, plots = _relative_steps(slim, central, arrays)
        best = _settled(_tried(arrays, relative), coded, central, settings)
        coded = coded.constrained(best.made)
        changed = [
            LayerChange(
                name, f"{int((each.levels != 0).sum()):,} of {each.levels.numel():,} levels are not zero"
            )
            for name, each in best.made.items()
        ]
    return coded, TechniqueReport(changed=tuple(changed), plots=plots)


def _relative_steps(
    slim: SlimModel, central: CentralTask, arrays: Arrays
) -> tuple[dict[str, float], Mapping[str, Plot]]:
    """Steps of the tensors, one for another, so that a bit buys as much in each; and a plot of the sensitivities."""

    def noisy(name: str, weight: Tensor, nmse: float) -> Tensor:
        noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(central.seed))
        return weight + noise * (nmse * weight.square().mean()).sqrt()

    found = sensitivities_of_tensors(slim, central, list(arrays), (PROBED,), noisy)
    rms = _rms(arrays)
    cost = {
        each.part: max(each.divergence[0], 1e-12) / (PROBED * rms[each.part] ** 2 * arrays[each.part].size)
        for each in found
    }
    points = tuple(Curve(each.part, (float(arrays[each.part].size),), each.divergence) for each in found)
    plots = {"noise in one tensor": Plot("weights of the tensor", "divergence of the outputs", points)}
    steps = {name: each**-0.5 for name, each in cost.items()}
    mean = float(np.mean([np.log(steps[name] / rms[name]) for name in arrays]))
    return {name: step * float(np.exp(-mean)) for name, step in steps.items()}, plots


def _rms(arrays: Arrays) -> dict[str, float]:
    return {
        name: float(np.sqrt(np.mean(np.square(array, dtype=np.float64)))) for name, array in arrays.items()
    }


def _tried(arrays: Arrays, relative: Mapping[str, float]) -> Callable[[float], _Trial]:
    """A function from the scale of the steps to what they make of the matrices."""
    rms = _rms(arrays)
    energy = sum(rms[name] ** 2 * array.size for name, array in arrays.items())

    def trial(scale: float) -> _Trial:
        steps = [float(np.clip(scale * relative[n], FINEST * rms[n], COARSEST * rms[n])) for n in arrays]
        nmse = sum(
            (step / 2) ** 2 / 3 * array.size for step, array in zip(steps, arrays.values(), strict=True)
        )
        made = trellis_levels(list(arrays.values()), steps, nmse / energy)
        frozen, error = {}, 0.0
        for (name, array), levels, step in zip(arrays.items(), made.levels, made.steps, strict=True):
            frozen[name] = Frozen(torch.from_numpy(levels), torch.tensor(step))
            error += float(np.sum(np.square(levels * step - array, dtype=np.float64)))
        return _Trial(frozen, made.bytes, error / energy)

    return trial


def _settled(
    trial: Callable[[float], _Trial], slim: SlimModel, central: CentralTask, settings: Code
) -> _Trial:
    """The coarsest trial that keeps to the settings."""
    before = central.validated(slim.model) if settings.loss is not None else None

    def keeps(tried: _Trial) -> bool:
        if settings.loss is not None and before is not None:
            now = central.validated(slim.constrained(tried.made).model)
            return points_lost(now, before) <= settings.loss
        if settings.bits:
            levels = sum(each.levels.numel() for each in tried.made.values())
            return 8 * tried.bytes <= settings.bits * levels
        return tried.nmse <= settings.nmse

    finest, coarsest = log2(FINEST), log2(COARSEST)
    wants_coarse = settings.loss is not None or not settings.bits
    best = trial(FINEST if wants_coarse else COARSEST)
    if not keeps(best):
        raise BadInput(_unreachable(settings))
    for done in range(TRIES):
        central.progress("coding", done, TRIES)
        middle = (finest + coarsest) / 2
        tried = trial(2.0**middle)
        if kept := keeps(tried):
            best = tried
        finest, coarsest = (middle, coarsest) if kept == wants_coarse else (finest, middle)
    return best


def _unreachable(settings: Code) -> str:
    if settings.loss is not None:
        return f"code loses more than {settings.loss:g} points at the finest steps: allow more loss"
    if settings.bits:
        return f"code cannot hold a weight in {settings.bits:g} bits: allow more"
    return f"code errs by more than {settings.nmse:g} at the finest steps: allow more, or leave it out"


def shortened(slim: SlimModel, bits: int, besides: Collection[str] = ()) -> SlimModel:
    """A copy whose floats keep so many bits of the mantissa, but for the tensors named in `besides`.

    Levels of a grid stay, and its steps are shortened; weights that share a value go on sharing one.
    """
    short = slim.copy()
    named = dict(short.model.named_parameters())
    constraints: dict[str, Constraint] = {}
    for name, tensor in [*named.items(), *short.model.named_buffers()]:
        constraint = slim.constraints.get(name)
        if name in besides or isinstance(constraint, Frozen) or not tensor.is_floating_point():
            continue
        if isinstance(constraint, Grid):
            step = _short(constraint.step, bits)
            constraints[name] = replace(constraint, step=step)
            tensor.data.copy_(constraint.levels(tensor.detach()) * step)
        else:
            tensor.data.copy_(_short(tensor.detach(), bits))
    return short.constrained(constraints)


def _short(values: Tensor, bits: int) -> Tensor:
    array = values.to(torch.float32).contiguous().numpy()
    return torch.from_numpy(rounded(array.reshape(-1), FLOAT32, bits).reshape(array.shape).copy()).to(
        values.dtype
    )
