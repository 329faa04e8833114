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
from annotated_types import Ge, Gt, Le, Lt
from numpy.typing import NDArray
from torch import nn

from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.evaluation.importance import Importance, importance_of
from slimfleet.compression.model.evaluation.measuring import flops_of, parameters_of
from slimfleet.compression.model.evaluation.sensitivity import Sensitivity, plots_of, sensitivities
from slimfleet.compression.model.evaluation.threshold import largest_share
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.technique import LayerChange, Plot, TechniqueReport
from slimfleet.compression.model.training.schedule import Schedule, shares
from slimfleet.compression.model.training.tuning import Tuning, tune
from slimfleet.compression.pruning import ChannelGroup, IndexMap, Member, index_map
from slimfleet.compression.pruning.discover import discover
from slimfleet.compression.pruning.shrink import shrink_model
from slimfleet.compression.tensors import schema_of
from slimfleet.compression.types import Channels

__all__ = ["Prune", "channel_scores", "prune", "sensitivity_to_pruning"]

SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Of the channels of a group, that sensitivity is measured at."""

Groups = tuple[ChannelGroup, ...]
Scores = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prune:
    """Settings of `prune`."""

    share: Annotated[float, Gt(0), Lt(1)] = 0.5
    """Share of `of` that is removed."""
    loss: Annotated[float, Gt(0), Le(100)] | None = None
    """Points of validation accuracy (percent of the loss, where a task has no accuracy) that may be lost before
    training; the share is then found, in place of `share`."""
    of: Literal["flops", "parameters", "channels"] = "flops"
    importance: Importance = "magnitude"
    scope: Literal["global", "layer"] = "global"
    least: Annotated[float, Ge(0), Lt(1)] = 0.05
    """Share of each group's channels that stays in any case."""
    pace: Schedule = "iterative"
    sensitivity: bool = False
    """Whether to measure before what each group alone loses with fewer and fewer channels, for the report."""
    tuning: Tuning = field(default_factory=Tuning)


def prune(slim: SlimModel, central: CentralTask, settings: Prune) -> tuple[SlimModel, TechniqueReport]:
    """Remove channels until the share is reached, in stages with fine-tuning after each.

    Raises BadInput where no channel can be removed, where all that can be do not reach the share, and where not even
    1/256 of the channels can be removed within `loss`.
    """
    model = slim.unconstrained("prune")
    found = discover(model, central.example_inputs)
    if not found.groups:
        raise BadInput(
            "prune finds no channels to remove: " + "; ".join(f"{w.name}: {w.reason}" for w in found.whole)
        )
    groups = tuple(_bounded(group, settings.least) for group in found.groups)
    whole = cost_of(model, groups, central, settings.of)
    share, plots = _goal(model, groups, central, settings)
    if settings.sensitivity:
        found_alone = sensitivity_to_pruning(slim, central, settings)
        plots = {**plots, **plots_of("channels of one group", "share of channels removed", found_alone)}
    stages = list(shares(settings.pace, share))
    each = replace(settings.tuning, epochs=settings.tuning.epochs / len(stages))
    steps = 0
    for share in stages:
        scores = channel_scores(groups, SlimModel(model), central, settings.importance)
        keep = _fewest(model, groups, scores, central, settings, (1 - share) * whole)
        model, groups = _cut(model, groups, keep)
        tuned, done = tune(SlimModel(model), central, each, "pruning")
        model, steps = tuned.model, steps + done.steps
    before = {group.name: group.size for group in found.groups}
    changed = tuple(LayerChange(g.name, f"{before[g.name]} -> {g.size} channels") for g in groups)
    left = tuple(LayerChange(each.name, each.reason) for each in found.whole)
    return SlimModel(model), TechniqueReport(changed=changed, whole=left, plots=plots, steps=steps)


def sensitivity_to_pruning(slim: SlimModel, central: CentralTask, settings: Prune) -> tuple[Sensitivity, ...]:
    """Validation loss and accuracy without a share of the channels of each group alone."""
    model = slim.unconstrained("prune")
    groups = discover(model, central.example_inputs).groups
    scores = channel_scores(groups, slim, central, settings.importance)

    def without(name: str, share: float) -> nn.Module:
        group = next(each for each in groups if each.name == name)
        return _cut(model, groups, _highest([group], scores, 1 - share, settings))[0]

    return sensitivities(model, central, [group.name for group in groups], SHARES, without)


def _goal(
    model: nn.Module, groups: Groups, central: CentralTask, settings: Prune
) -> tuple[float, Mapping[str, Plot]]:
    """The share that is removed, and the plot that it was found by."""
    if settings.loss is None:
        return settings.share, {}
    scores = channel_scores(groups, SlimModel(model), central, settings.importance)

    def without(share: float) -> nn.Module:
        return _cut(model, groups, _highest(groups, scores, 1 - share, settings))[0]

    channels, curve = largest_share(model, central, without, settings.loss)
    whole = cost_of(model, groups, central, settings.of)
    smaller, fewer = _cut(model, groups, _highest(groups, scores, 1 - channels, settings))
    share = 1 - cost_of(smaller, fewer, central, settings.of) / whole
    if share <= 0:
        raise BadInput(
            f"prune loses more than {settings.loss:g} points with 1/256 of the channels removed: allow more loss, or "
            f"leave it out"
        )
    return share, {"one-shot pruning, share of channels": Plot("share removed", "points lost", (curve,))}


def _bounded(group: ChannelGroup, least: float) -> ChannelGroup:
    """The group with at least that share of its channels kept."""
    return replace(group, min_channels=max(group.min_channels, round(least * group.size)))


def cost_of(model: nn.Module, groups: Sequence[ChannelGroup], central: CentralTask, of: str) -> float:
    """FLOPs, parameters or removable channels of a model."""
    if of == "flops":
        return flops_of(model, central.example_inputs)
    if of == "channels":
        return float(sum(group.size for group in groups))
    return float(parameters_of(model))


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
    model: nn.Module, groups: Groups, scores: Scores, central: CentralTask, settings: Prune, goal: float
) -> Channels:
    """The most channels whose model costs at most `goal`, found by halving the interval."""
    total = sum(group.size for group in groups)

    def kept(count: int) -> Channels:
        return _highest(groups, scores, count / total, settings)

    def cost(count: int) -> float:
        return cost_of(*_cut(model, groups, kept(count)), central, settings.of)

    goal *= 1 + 1e-9  # the cost of a model that was measured before
    low, high = 0, total
    if (least := cost(low)) > goal:
        raise BadInput(
            f"prune cannot reach {goal:,.0f} {settings.of}: {least:,.0f} are left with the fewest channels that every "
            f"group keeps; remove a smaller share, or lower least ({settings.least:g})"
        )
    while high - low > max(total // 256, 1):
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= goal else (low, middle)
    return kept(low)


def _highest(groups: Sequence[ChannelGroup], scores: Scores, share: float, settings: Prune) -> Channels:
    """The channels of highest worth, a `share` of all of them or of each group's, and the least of each group."""
    wanted = {group.name: round(share * group.size) for group in groups}
    if settings.scope == "global":
        worth = np.concatenate([scores[group.name] for group in groups])
        best = np.argsort(-worth, kind="stable")[: round(share * len(worth))]
        ends = np.cumsum([group.size for group in groups])
        counts = np.bincount(np.searchsorted(ends, best, side="right"), minlength=len(groups))
        wanted = dict(zip(wanted, counts.tolist(), strict=True))
    keep = {}
    for group in groups:
        count = max(wanted[group.name], group.min_channels)
        keep[group.name] = np.sort(np.argsort(-scores[group.name], kind="stable")[:count])
    return keep


def _cut(model: nn.Module, groups: Groups, keep: Channels) -> tuple[nn.Module, Groups]:
    """The smaller model, and its groups."""
    smaller = index_map(schema_of(model), groups, keep)
    return shrink_model(model, smaller), narrowed(groups, smaller, keep)


def narrowed(groups: Sequence[ChannelGroup], smaller: IndexMap, keep: Channels) -> Groups:
    """The same groups in the smaller model; one that `keep` does not name is whole."""
    kept = {group.name: keep.get(group.name, np.arange(group.size)) for group in groups}
    return tuple(
        replace(
            group,
            size=len(kept[group.name]),
            members=tuple(
                replace(member, positions=_renumbered(smaller, member, member.positions[kept[group.name]]))
                for member in group.members
            ),
        )
        for group in groups
    )


def _renumbered(smaller: IndexMap, member: Member, positions: NDArray[np.intp]) -> NDArray[np.intp]:
    kept = smaller.kept[member.tensor][member.dim]
    return positions if kept is None else np.searchsorted(kept, positions)
