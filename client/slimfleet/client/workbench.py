"""What a device prepares once and uses in every round: the task's architecture, and each sub-model it has met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from slimfleet.client.held import Held
from slimfleet.compression import Payload, PayloadError, Task, Tensors
from slimfleet.compression.codec import Received, Snapshot, decode_change, decode_model
from slimfleet.compression.cost import Runtime, Work, measure_work
from slimfleet.compression.pruning import IndexMap, unpack_channels, within
from slimfleet.compression.pruning.blueprint import Blueprint
from slimfleet.compression.pruning.shrink import shrink_model
from slimfleet.compression.tensors import load_tensors
from slimfleet.compression.wire import Header, Kind, read_header


@dataclass(frozen=True, slots=True)
class SubModel:
    """A received model: built and loaded, with its place in the full model and its measured work."""

    model: nn.Module
    tensors: Tensors
    """As received, before training."""
    places: IndexMap
    work: Work
    received_bytes: int
    channels: bytes
    """Packed channel masks, as they came."""
    snapshot: Snapshot | None
    """What a device keeps so that a later round may send a change of it; None of a model in plain float32."""
    base_version: int | None
    """The version that came as changed; None where the model came whole."""


@dataclass(frozen=True)
class Workbench:
    """Builds sub-models. Modules and measurements are kept by shape, since a fleet meets few widths."""

    task: Task
    blueprint: Blueprint
    runtime: Runtime
    _built: dict[bytes, tuple[nn.Module, Work]] = field(default_factory=dict, repr=False)

    def open(self, payload: Payload, held: Sequence[Held] = ()) -> SubModel:
        """Decode a downlink payload, a whole model or a change of one of those `held`, and build its model.

        Raises PayloadError when it is not acceptable: stale where it is the change of a model that is not held.
        """
        header = read_header(payload)
        if header.kind is Kind.UPDATE:
            raise PayloadError("header", "this payload holds an update, a device needs a model")
        places = self.blueprint.places(unpack_channels(self.blueprint.groups, header.side))
        if header.kind is Kind.CHANGE:
            received = decode_change(payload, places.schema, self._base(header, places, held))
        else:
            received = decode_model(payload, places.schema)
        return self._built_from(received, header, places, len(payload))

    def _built_from(
        self, received: Received, header: Header, places: IndexMap, received_bytes: int
    ) -> SubModel:
        model, work = self._build(places)
        load_tensors(model, received.tensors)
        return SubModel(
            model=model,
            tensors=received.tensors,
            places=places,
            work=work,
            received_bytes=received_bytes,
            channels=header.side,
            snapshot=received.snapshot,
            base_version=header.base_version if header.kind is Kind.CHANGE else None,
        )

    def _base(self, header: Header, places: IndexMap, held: Sequence[Held]) -> Snapshot:
        """The held model that a change builds on, cut to the channels that it is about."""
        for model in held:
            if model.version == header.base_version:
                mine = self.blueprint.places(unpack_channels(self.blueprint.groups, model.channels))
                inner = within(mine, places)
                levels = {name: inner.cut(name, array) for name, array in model.snapshot.levels.items()}
                return Snapshot(levels, model.snapshot.units)
        raise PayloadError("stale", f"version {header.base_version} is not held here: send the whole model")

    def _build(self, places: IndexMap) -> tuple[nn.Module, Work]:
        shape = places.schema.digest
        if shape not in self._built:
            model = shrink_model(self.blueprint.model, places)
            self._built[shape] = model, measure_work(model, self.task.example_inputs(), self.task.loss)
        return self._built[shape]
