"""Blueprint: one architecture, examined once: the model, its schema and its channel groups."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from slimfleet.compression.checked_task import blamed
from slimfleet.compression.pruning.discover import discover
from slimfleet.compression.pruning.groups import ChannelGroup
from slimfleet.compression.pruning.index_map import IndexMap, index_map
from slimfleet.compression.pruning.shrink import shrink_model
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.task import Task
from slimfleet.compression.tensors import schema_of
from slimfleet.compression.types import Channels


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What a task's model is made of. Both ends build the same one from the same task."""

    model: nn.Module
    """The full-width model as initialised; never trained, only copied."""
    schema: ModelSchema
    groups: tuple[ChannelGroup, ...]

    def index_map(self, channels: Channels) -> IndexMap:
        """Where the elements of a model shrunk to `channels` stand in the full model."""
        return index_map(self.schema, self.groups, channels)

    def shrunk(self, channels: Channels) -> nn.Module:
        """A copy of the model, as initialised, that keeps `channels`."""
        return shrink_model(self.model, self.index_map(channels))


def blueprint(task: Task, seed: int) -> Blueprint:
    """Build the task's model with torch seeded by `seed` (the global generator is left alone) and examine it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = task.build_model()
    with blamed(task.name, "build_model, examined for channels to remove"):
        return Blueprint(model, schema_of(model), discover(model, task.example_inputs()))
