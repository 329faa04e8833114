"""Sparsification: single weights become zero, anywhere or n of every m (unstructured and N:M pruning).

Zeros cost almost nothing in the file; a runtime without sparse kernels computes with them all the same. Masks follow
`importance`, `pace` says when. N:M keeps n of m neighbours along the inputs of a layer, as sparse tensor cores want
(Mishra et al. 2021, arXiv 2104.08378): of a convolution m input channels at one place of the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import torch
from annotated_types import Gt, Le, Lt
from torch import Tensor, nn
from torch.nn import functional as F

from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.constraints import Mask
from slimfleet.compression.model.evaluation.importance import Importance, Movement, importance_of
from slimfleet.compression.model.evaluation.sensitivity import Sensitivity, plots_of, sensitivities_of_tensors
from slimfleet.compression.model.evaluation.threshold import largest_share
from slimfleet.compression.model.slim_model import SlimModel, weights_of
from slimfleet.compression.model.technique import LayerChange, Plot, TechniqueReport
from slimfleet.compression.model.training.schedule import Schedule, shares
from slimfleet.compression.model.training.tuning import Tuner, Tuning

__all__ = ["Sparsify", "masks_of", "sensitivity_to_zeros", "sparsify"]

SHARES = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
"""Of zeros, that sensitivity is measured at."""

Scores = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparsify:
    """Settings of `sparsify`."""

    share: Annotated[float, Gt(0), Lt(1)] = 0.8
    """Share of the weights that become zero."""
    loss: Annotated[float, Gt(0), Le(100)] | None = None
    """Points of validation accuracy (percent of the loss, where a task has no accuracy) that may be lost before
    training; the share is then found, in place of `share`."""
    pattern: Literal["any", "2:4", "4:8", "1:4"] = "any"
    """`n:m` keeps n of every m weights along the inputs of a layer, whatever `share` says."""
    importance: Importance = "magnitude"
    """`movement` is summed up over the steps of training that come before each mask."""
    scope: Literal["global", "layer"] = "global"
    """Whether weights compete across the whole model or within their tensor."""
    pace: Schedule = "gradual"
    sensitivity: bool = False
    """Whether to measure before what each tensor alone loses with more and more zeros, for the report."""
    tuning: Tuning = field(default_factory=Tuning)


def sparsify(slim: SlimModel, central: CentralTask, settings: Sparsify) -> tuple[SlimModel, TechniqueReport]:
    """Zero weights of tensors of two or more dimensions; those that obey another constraint already stay as they are.

    Raises BadInput where all do, and where not even 1/256 can be zeroed within `loss`.
    """
    whole = dict(_whole(slim, settings))
    names = [name for name in weights_of(slim.model) if name not in whole]
    if not names:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in whole.items())
        raise BadInput(f"sparsify finds no weights to zero, put it before share and quantise: {reasons}")
    goal, plots = _goal(slim, central, names, settings)
    if settings.sensitivity:
        plots = {
            **plots,
            **plots_of(
                "zeros in one tensor", "share of zeros", sensitivity_to_zeros(slim, central, names, settings)
            ),
        }
    watch = Movement() if settings.importance == "movement" and settings.tuning.epochs else None
    tuner = Tuner(slim, central, settings.tuning, "sparsifying", watch=watch)
    stages = list(shares(settings.pace, goal))
    for share in stages:
        if len(stages) > 1 or watch:
            tuner.run(tuner.planned // 2 // len(stages))
        now = tuner.slim
        scores = watch.scores(now.model) if watch else importance_of(settings.importance, now, central)
        masks = masks_of(_free(scores, names, slim), settings, share)
        tuner.constrain({name: replace(mask, rounds=bool(watch)) for name, mask in masks.items()})
    sparse, tuned = tuner.finish()
    return sparse, TechniqueReport(
        changed=tuple(_changes(sparse, names)),
        whole=tuple(LayerChange(name, reason) for name, reason in whole.items()),
        plots=plots,
        steps=tuned.steps,
    )


def sensitivity_to_zeros(
    slim: SlimModel, central: CentralTask, names: list[str], settings: Sparsify
) -> tuple[Sensitivity, ...]:
    """Validation loss and accuracy with a share of the weights of each tensor alone at zero."""
    scores = importance_of(settings.importance, slim, central)

    def zeroed(name: str, weight: Tensor, share: float) -> Tensor:
        return weight * highest(scores[name], share)

    return sensitivities_of_tensors(slim, central, names, SHARES, zeroed)


def _goal(
    slim: SlimModel, central: CentralTask, names: list[str], settings: Sparsify
) -> tuple[float, Mapping[str, Plot]]:
    """The share of weights that become zero, and the plot that it was found by."""
    if settings.pattern != "any":
        keep, of = _pattern(settings)
        return 1 - keep / of, {}
    if settings.loss is None:
        return settings.share, {}
    found, curve = largest_share(slim.model, central, _zeroing(slim, central, names, settings), settings.loss)
    if not found:
        raise BadInput(
            f"sparsify loses more than {settings.loss:g} points with 1/256 of the weights at zero: allow more loss, "
            f"or leave it out"
        )
    return found, {"one-shot sparsity": Plot("share of zeros", "points lost", (curve,))}


def _zeroing(
    slim: SlimModel, central: CentralTask, names: list[str], settings: Sparsify
) -> Callable[[float], nn.Module]:
    scores = importance_of(settings.importance, slim, central)
    chosen = _free(scores, names, slim)
    return lambda share: slim.constrained(masks_of(chosen, settings, share)).model


def _free(scores: Scores, names: list[str], slim: SlimModel) -> dict[str, Tensor]:
    """The scores of these tensors, minus infinity where weights are masked already."""
    return {
        name: scores[name].where(obeyed.free, -torch.inf)
        if isinstance(obeyed := slim.constraints.get(name), Mask)
        else scores[name]
        for name in names
    }


def masks_of(scores: Scores, settings: Sparsify, share: float) -> dict[str, Mask]:
    """Masks that keep the highest scores above minus infinity, in the pattern and scope of `settings`."""
    if settings.pattern != "any":
        keep, of = _pattern(settings)
        keep = max(keep, round(of * (1 - share)))
        return {name: Mask(of_every(score, keep, of)) for name, score in scores.items()}
    if settings.scope == "layer":
        return {name: Mask(highest(score, share)) for name, score in scores.items()}
    free = highest(torch.cat([score.flatten() for score in scores.values()]), share)
    parts = torch.split(free, [score.numel() for score in scores.values()])
    return {
        name: Mask(part.view_as(score)) for part, (name, score) in zip(parts, scores.items(), strict=True)
    }


def _pattern(settings: Sparsify) -> tuple[int, int]:
    keep, of = map(int, settings.pattern.split(":"))
    return keep, of


def highest(scores: Tensor, share: float) -> Tensor:
    """bool, the shape of `scores`: false for the `share` of lowest scores, the first of equal ones."""
    free = torch.ones(scores.numel(), dtype=torch.bool)
    free[scores.flatten().argsort(stable=True)[: round(share * scores.numel())]] = False
    return free.view_as(scores) & ~scores.isneginf()


def of_every(scores: Tensor, keep: int, of: int) -> Tensor:
    """bool, the shape of `scores` [out, in, ...]: true for the `keep` highest of every `of` neighbours along the second
    dimension; a last group of fewer keeps that many too."""
    rows = scores.movedim(1, -1)
    padded = F.pad(rows, (0, -rows.shape[-1] % of), value=-torch.inf)
    padded = padded.reshape(*rows.shape[:-1], -1, of)
    best = padded.argsort(dim=-1, descending=True, stable=True)[..., :keep]
    free = torch.zeros_like(padded, dtype=torch.bool).scatter_(-1, best, True)
    return free.flatten(-2)[..., : rows.shape[-1]].movedim(-1, 1).contiguous() & ~scores.isneginf()


def _changes(sparse: SlimModel, names: list[str]) -> Iterator[LayerChange]:
    weights = weights_of(sparse.model)
    for name in names:
        zeros = int((weights[name] == 0).sum())
        yield LayerChange(name, f"{zeros:,} of {weights[name].numel():,} weights are zero")


def _whole(slim: SlimModel, settings: Sparsify) -> Iterator[tuple[str, str]]:
    """Tensors that stay as they are, and why."""
    for name, weight in weights_of(slim.model).items():
        obeyed = slim.constraints.get(name)
        if not isinstance(obeyed, Mask | None):
            yield name, f"obeys a {type(obeyed).__name__.lower()} already"
        elif settings.pattern != "any" and weight.shape[1] <= _pattern(settings)[0]:
            yield name, f"has {weight.shape[1]} inputs, of which {settings.pattern} keeps all"
