"""Structured pruning: channels, neurons, recurrent units and heads are removed, so that the model is really smaller.

Which ones are coupled, the channel groups say (`slimfleet.compression.pruning`). A channel is worth the importance of
all that it owns (DepGraph, Fang et al. 2023, arXiv 2301.12900, section 3.3). Globally the channels of all groups
compete; within a layer every group gives the same share. How many have to go is found by measuring the smaller model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Lt
from numpy.typing import NDArray
from torch import nn

from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.importance import Importance, importance_of
from slimfleet.compression.model.measuring import flops_of
from slimfleet.compression.model.schedule import Schedule, shares
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.technique import LayerChange, TechniqueReport
from slimfleet.compression.model.tuning import Tuning, tune
from slimfleet.compression.pruning import ChannelGroup, IndexMap, Member, index_map
from slimfleet.compression.pruning.discover import discover
from slimfleet.compression.pruning.shrink import shrink_model
from slimfleet.compression.tensors import schema_of
from slimfleet.compression.types import Channels

__all__ = ["Prune", "prune"]

Scores = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prune:
    """Settings of `prune`."""

    share: Annotated[float, Gt(0), Lt(1)] = 0.5
    """Share of `of` that is removed."""
    of: Literal["flops", "parameters", "channels"] = "flops"
    importance: Importance = "magnitude"
    scope: Literal["global", "layer"] = "global"
    least: Annotated[float, Ge(0), Lt(1)] = 0.05
    """Share of each group's channels that stays in any case."""
    schedule: Schedule = "iterative"
    tuning: Tuning = field(default_factory=Tuning)


def prune(slim: SlimModel, central: CentralTask, settings: Prune) -> tuple[SlimModel, TechniqueReport]:
    """Remove channels until the share is reached, in stages with fine-tuning after each.

    Raises BadInput where no channel can be removed, or where all that can be do not reach the share.
    """
    model = slim.unconstrained("prune")
    found = discover(model, central.example_inputs)
    if not found.groups:
        raise BadInput(
            "prune finds no channels to remove: " + "; ".join(f"{w.name}: {w.reason}" for w in found.whole)
        )
    whole, size = cost_of(model, central, settings.of), settings.tuning
    stages = list(shares(settings.schedule, settings.share))
    each = replace(size, epochs=size.epochs / len(stages))
    groups, steps = found.groups, 0
    for share in stages:
        scores = channel_scores(groups, SlimModel(model), central, settings.importance)
        keep = _fewest(model, groups, scores, central, settings, (1 - share) * whole)
        smaller = index_map(schema_of(model), groups, keep)
        model, groups = shrink_model(model, smaller), narrowed(groups, smaller, keep)
        tuned, done = tune(SlimModel(model), central, each, "pruning")
        model, steps = tuned.model, steps + done.steps
    before = {group.name: group.size for group in found.groups}
    changed = tuple(LayerChange(g.name, f"{before[g.name]} -> {g.size} channels") for g in groups)
    left = tuple(LayerChange(each.name, each.reason) for each in found.whole)
    return SlimModel(model), TechniqueReport(changed=changed, whole=left, steps=steps)


def cost_of(model: nn.Module, central: CentralTask, of: str) -> float:
    """FLOPs or parameters of a model."""
    if of == "flops":
        return flops_of(model, central.example_inputs)
    return float(sum(p.numel() for p in model.parameters()))


def channel_scores(
    groups: Sequence[ChannelGroup], slim: SlimModel, central: CentralTask, kind: Importance
) -> dict[str, NDArray[np.float64]]:
    """Group name -> what each of its channels is worth, float64 [channels].

    Magnitudes of different layers are on different scales: they are divided by their group's mean.
    """
    scores = {name: score.numpy() for name, score in importance_of(kind, slim, central).items()}
    summed = {group.name: _sum(group, scores, squared=kind == "magnitude") for group in groups}
    if kind != "magnitude":
        return summed
    return {name: values / (values.mean() or 1.0) for name, values in summed.items()}


def _sum(
    group: ChannelGroup, scores: Mapping[str, NDArray[np.floating]], squared: bool
) -> NDArray[np.float64]:
    total = np.zeros(group.size)
    for member in group.members:
        if member.tensor in scores:
            score = scores[member.tensor].astype(np.float64)
            others = tuple(dim for dim in range(score.ndim) if dim != member.dim)
            total += (score**2 if squared else score).sum(axis=others)[member.positions].sum(axis=1)
    return np.sqrt(total) if squared else total


def _fewest(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    scores: Scores,
    central: CentralTask,
    settings: Prune,
    goal: float,
) -> Channels:
    """The most channels whose model costs at most `goal`, found by halving the interval."""
    total = sum(group.size for group in groups)
    low, high = 0, total

    def kept(count: int) -> Channels:
        return _highest(groups, scores, count / total, settings)

    while high - low > max(total // 256, 1):
        middle = (low + high) // 2
        smaller = shrink_model(model, index_map(schema_of(model), groups, kept(middle)))
        if cost_of(smaller, central, settings.of) <= goal:
            low = middle
        else:
            high = middle
    return kept(low)


def _highest(groups: Sequence[ChannelGroup], scores: Scores, share: float, settings: Prune) -> Channels:
    """The channels of highest worth, a `share` of all of them or of each group's, and the least of each group."""
    if settings.scope == "global":
        worth = np.sort(np.concatenate([scores[group.name] for group in groups]))[::-1]
        count = round(share * len(worth))
        floor = worth[count - 1] if count else np.inf
    keep = {}
    for group in groups:
        own = scores[group.name]
        wanted = int((own >= floor).sum()) if settings.scope == "global" else round(share * group.size)
        wanted = max(wanted, group.min_channels, round(settings.least * group.size))
        keep[group.name] = np.sort(np.argsort(-own, kind="stable")[:wanted])
    return keep


def narrowed(groups: Sequence[ChannelGroup], smaller: IndexMap, keep: Channels) -> tuple[ChannelGroup, ...]:
    """The same groups in the smaller model."""
    return tuple(
        replace(
            group,
            size=len(keep[group.name]),
            members=tuple(
                replace(member, positions=_renumbered(smaller, member, member.positions[keep[group.name]]))
                for member in group.members
            ),
        )
        for group in groups
    )


def _renumbered(smaller: IndexMap, member: Member, positions: NDArray[np.intp]) -> NDArray[np.intp]:
    kept = smaller.kept[member.tensor][member.dim]
    return positions if kept is None else np.searchsorted(kept, positions)
