"""What a device prepares once and uses in every round: the task's architecture, and each sub-model it has met."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from slimfleet.compression import Payload, PayloadError, Task, Tensors
from slimfleet.compression.codec import decode
from slimfleet.compression.cost import Runtime, Work, measure_work
from slimfleet.compression.pruning import IndexMap, unpack_channels
from slimfleet.compression.pruning.blueprint import Blueprint
from slimfleet.compression.pruning.shrink import shrink_model
from slimfleet.compression.tensors import load_tensors
from slimfleet.compression.wire import Kind, read_header


@dataclass(frozen=True, slots=True)
class SubModel:
    """A received model: built and loaded, with its place in the full model and its measured work."""

    model: nn.Module
    tensors: Tensors
    """As received, before training."""
    places: IndexMap
    work: Work


@dataclass(frozen=True)
class Workbench:
    """Builds sub-models. Modules and measurements are kept by shape, since a fleet meets few widths."""

    task: Task
    blueprint: Blueprint
    runtime: Runtime
    _built: dict[bytes, tuple[nn.Module, Work]] = field(default_factory=dict, repr=False)

    def open(self, payload: Payload) -> SubModel:
        """Decode a downlink payload and build its model. Raises PayloadError when it is not acceptable."""
        header = read_header(payload)
        if header.kind is not Kind.MODEL:
            raise PayloadError("header", "this payload holds an update, a device needs a model")
        channels = unpack_channels(self.blueprint.groups, header.side)
        places = self.blueprint.places(channels)
        tensors = decode(payload, places.schema).tensors
        model, work = self._build(places)
        load_tensors(model, tensors)
        return SubModel(model, tensors, places, work)

    def _build(self, places: IndexMap) -> tuple[nn.Module, Work]:
        shape = places.schema.digest
        if shape not in self._built:
            model = shrink_model(self.blueprint.model, places)
            self._built[shape] = model, measure_work(model, self.task.example_inputs(), self.task.loss)
        return self._built[shape]
