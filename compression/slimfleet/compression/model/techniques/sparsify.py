"""Sparsification: single weights become zero, anywhere or n of every m (unstructured and N:M pruning).

Zeros cost almost nothing in the file; a runtime without sparse kernels computes with them all the same. Masks follow
`importance`, `schedule` says when. N:M keeps n of m neighbours along the inputs of a layer, as sparse tensor cores want
(Mishra et al. 2021, arXiv 2104.08378).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.constraints import Mask
from slimfleet.compression.model.importance import Importance, importance_of
from slimfleet.compression.model.schedule import Schedule, shares
from slimfleet.compression.model.slim_model import SlimModel, weights_of
from slimfleet.compression.model.technique import LayerChange, TechniqueReport
from slimfleet.compression.model.tuning import Tuner, Tuning

__all__ = ["Sparsify", "sparsify"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparsify:
    """Settings of `sparsify`."""

    share: Annotated[float, Gt(0), Lt(1)] = 0.8
    """Share of the weights that become zero."""
    pattern: Literal["any", "2:4", "4:8", "1:4"] = "any"
    """`n:m` keeps n of every m weights along the inputs of a layer, whatever `share` says."""
    importance: Importance = "magnitude"
    scope: Literal["global", "layer"] = "global"
    """Whether weights compete across the whole model or within their tensor."""
    schedule: Schedule = "gradual"
    tuning: Tuning = field(default_factory=Tuning)

    @property
    def goal(self) -> float:
        """Share of the weights that become zero."""
        if self.pattern == "any":
            return self.share
        keep, of = map(int, self.pattern.split(":"))
        return 1 - keep / of


def sparsify(slim: SlimModel, central: CentralTask, settings: Sparsify) -> tuple[SlimModel, TechniqueReport]:
    """Zero weights of tensors of two or more dimensions; those that obey another constraint already stay as they are.

    Raises BadInput where all do.
    """
    names = [name for name in weights_of(slim.model) if isinstance(slim.constraints.get(name), Mask | None)]
    if not names:
        raise BadInput("sparsify finds no weights that are neither shared nor quantised: put it before those")
    tuner = Tuner(slim, central, settings.tuning, "sparsifying")
    stages = list(shares(settings.schedule, settings.goal))
    for share in stages:
        scores = importance_of(settings.importance, tuner.slim, central)
        tuner.constrain(_masks({name: scores[name] for name in names}, settings, share))
        if len(stages) > 1:
            tuner.run(tuner.planned // 2 // len(stages))
    sparse, tuned = tuner.finish()
    return sparse, TechniqueReport(
        changed=tuple(_changes(sparse, names)), whole=tuple(_whole(sparse, names)), steps=tuned.steps
    )


def _masks(scores: dict[str, Tensor], settings: Sparsify, share: float) -> dict[str, Mask]:
    if settings.pattern != "any":
        keep, of = map(int, settings.pattern.split(":"))
        keep = max(keep, round(of * (1 - share)))
        return {name: Mask(of_every(score, keep, of)) for name, score in scores.items()}
    if settings.scope == "layer":
        return {name: Mask(highest(score, share)) for name, score in scores.items()}
    free = highest(torch.cat([score.flatten() for score in scores.values()]), share)
    parts = torch.split(free, [score.numel() for score in scores.values()])
    return {
        name: Mask(part.view_as(score)) for part, (name, score) in zip(parts, scores.items(), strict=True)
    }


def highest(scores: Tensor, share: float) -> Tensor:
    """bool, the shape of `scores`: false for the `share` of lowest scores, the first of equal ones."""
    free = torch.ones(scores.numel(), dtype=torch.bool)
    free[scores.flatten().argsort(stable=True)[: round(share * scores.numel())]] = False
    return free.view_as(scores)


def of_every(scores: Tensor, keep: int, of: int) -> Tensor:
    """bool, the shape of `scores` [out, ...]: true for the `keep` highest of every `of` neighbours along the inputs of
    a layer; a last group of fewer keeps that many too."""
    rows = scores.flatten(1)
    padded = torch.nn.functional.pad(rows, (0, -rows.shape[1] % of), value=-torch.inf)
    padded = padded.reshape(len(rows), -1, of)
    best = padded.argsort(dim=2, descending=True, stable=True)[..., :keep]
    free = torch.zeros_like(padded, dtype=torch.bool).scatter_(2, best, True)
    return free.flatten(1)[:, : rows.shape[1]].reshape(scores.shape)


def _changes(sparse: SlimModel, names: list[str]) -> Iterator[LayerChange]:
    weights = weights_of(sparse.model)
    for name in names:
        zeros = int((weights[name] == 0).sum())
        yield LayerChange(name, f"{zeros:,} of {weights[name].numel():,} weights are zero")


def _whole(sparse: SlimModel, names: list[str]) -> Iterator[LayerChange]:
    for name in weights_of(sparse.model).keys() - set(names):
        yield LayerChange(name, f"obeys a {type(sparse.constraints[name]).__name__.lower()} already")
