"""Blueprint: one architecture, examined once: the model, its schema and its channel groups."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from slimfleet.compression.architecture import key_of
from slimfleet.compression.checked_task import CheckedTask, blamed, label_of
from slimfleet.compression.examined import Examined, Finding, user_cache
from slimfleet.compression.limits import check_channels, check_sizes, check_values
from slimfleet.compression.pruning.discover import discover
from slimfleet.compression.pruning.groups import ChannelGroup, Discovery, LeftWhole, Member, Size
from slimfleet.compression.pruning.index_map import IndexMap, index_map
from slimfleet.compression.pruning.shrink import shrink_model
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.task import Task
from slimfleet.compression.tensors import schema_of, tensors_of
from slimfleet.compression.types import Channels


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What a task's model is made of. Both ends build the same one from the same task."""

    model: nn.Module
    """The full-width model as initialised; never trained, only copied."""
    schema: ModelSchema
    groups: tuple[ChannelGroup, ...]
    whole: tuple[LeftWhole, ...] = ()
    """The layers whose output channels are in no group."""

    def index_map(self, channels: Channels) -> IndexMap:
        """Where the elements of a model shrunk to `channels` stand in the full model."""
        return index_map(self.schema, self.groups, channels)

    def shrunk(self, channels: Channels) -> nn.Module:
        """A copy of the model, as initialised, that keeps `channels`."""
        return shrink_model(self.model, self.index_map(channels))


def blueprint(task: Task, seed: int, examined: Examined | None = None) -> Blueprint:
    """Build the task's model with torch seeded by `seed` (the global generator is left alone) and examine it.

    The channel groups are looked up in `examined`, and found out and kept there where they are new, after a user's task
    was tried with the model. Without `examined` the task is tried every time, and the user's cache keeps the groups.
    Raises BadInput for a model that the wire cannot carry, or that no fleet can train.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = task.build_model()
    schema = schema_of(model)
    check_sizes(schema)
    check_values(schema, tensors_of(model))
    found = _discovered(task, model, examined)
    check_channels(found.groups)
    return Blueprint(model, schema, found.groups, found.whole)


def _discovered(task: Task, model: nn.Module, examined: Examined | None) -> Discovery:
    key = key_of("groups", task, model)
    findings = examined or user_cache()
    known = findings.get(key)
    if isinstance(task, CheckedTask) and (examined is None or known is None):
        task.rehearse_model(model)
    if known is not None:
        return _discovery_in(known)
    with blamed(label_of(task), "build_model, examined for channels to remove"):
        discovery = discover(model, task.example_inputs())
    findings.put(key, _finding(discovery))
    return discovery


def _finding(discovery: Discovery) -> Finding:
    positions = {
        f"{i}/{j}": member.positions
        for i, group in enumerate(discovery.groups)
        for j, member in enumerate(group.members)
    }
    rest = [
        [
            group.name,
            group.size,
            group.min_channels,
            [[member.tensor, member.dim] for member in group.members],
            [[size.layer, size.attribute, size.per_channel] for size in group.sizes],
        ]
        for group in discovery.groups
    ]
    whole = [[left.name, left.size, left.reason] for left in discovery.whole]
    return positions, {"groups": json.dumps(rest), "whole": json.dumps(whole)}


def _discovery_in(finding: Finding) -> Discovery:
    positions, fields = finding
    groups = tuple(
        ChannelGroup(
            name=name,
            size=size,
            members=tuple(
                Member(tensor, dim, positions[f"{i}/{j}"].astype(np.intp, copy=False))
                for j, (tensor, dim) in enumerate(members)
            ),
            min_channels=min_channels,
            sizes=tuple(Size(*each) for each in sizes),
        )
        for i, (name, size, min_channels, members, sizes) in enumerate(json.loads(fields["groups"]))
    )
    return Discovery(groups, tuple(LeftWhole(*left) for left in json.loads(fields["whole"])))
