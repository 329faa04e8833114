"""Workbench: what a device prepares once and uses in every round, its architecture and the sub-models it has met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from slimfleet.client.loaded import Loaded
from slimfleet.client.state import Held
from slimfleet.compression import Payload, PayloadError, Task, Tensors
from slimfleet.compression.codec import Received, Snapshot, decode_change, decode_model
from slimfleet.compression.cost import Runtime, Work, work_of
from slimfleet.compression.examined import Examined
from slimfleet.compression.pruning import IndexMap, unpack_channels, within
from slimfleet.compression.pruning.blueprint import Blueprint
from slimfleet.compression.pruning.shrink import shrink_model
from slimfleet.compression.tensors import load_tensors, tensors_of
from slimfleet.compression.wire import Header, PayloadKind, unseal


@dataclass(frozen=True, slots=True)
class SubModel:
    """A received model: built and loaded, with its place in the full model and its measured work."""

    model: nn.Module
    tensors: Tensors
    """Of `model` as received, before training."""
    index_map: IndexMap
    work: Work
    received_bytes: int
    channels: bytes
    """Packed channel masks, as received."""
    snapshot: Snapshot | None
    """What a device holds so that a later round may send a change of it; None for a model in plain float32."""
    base_version: int | None
    """The version that the payload was a change of; None where the model came whole."""


@dataclass(frozen=True)
class Workbench:
    """Builds sub-models. Modules and measurements are kept by shape, since a fleet meets few widths."""

    task: Task
    blueprint: Blueprint
    runtime: Runtime
    examined: Examined | None = None
    """Where the work of a shape is looked up before it is measured."""
    loaded: Loaded = field(init=False, repr=False)
    """Examples that are kept from one round to the next."""
    _built: dict[bytes, tuple[nn.Module, Work]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "loaded", Loaded(self.task))

    def open(self, payload: Payload, held: Sequence[Held] = ()) -> SubModel:
        """Decode a downlink payload, a whole model or a change of one of those `held`, and build its model.

        Raises PayloadError when it is not acceptable: stale where it is the change of a model that is not held.
        """
        opened = unseal(payload)
        header = opened.header
        if header.kind is PayloadKind.UPDATE:
            raise PayloadError("header", "this payload holds an update, a device needs a model")
        index_map = self.blueprint.index_map(unpack_channels(self.blueprint.groups, header.side))
        if header.kind is PayloadKind.CHANGE:
            received = decode_change(opened, index_map.schema, self._base(header, index_map, held))
        else:
            received = decode_model(opened, index_map.schema)
        return self._built_from(received, header, index_map, len(payload))

    def _built_from(
        self, received: Received, header: Header, index_map: IndexMap, received_bytes: int
    ) -> SubModel:
        model, work = self._build(index_map)
        load_tensors(model, received.tensors)
        trained = {spec.name for spec in index_map.schema.weights}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            # Whatever an earlier round left: what is trained was decided when the model was first built.
            parameter.requires_grad_(name in trained)
        return SubModel(
            model=model,
            tensors=tensors_of(model),
            index_map=index_map,
            work=work,
            received_bytes=received_bytes,
            channels=header.side,
            snapshot=received.snapshot,
            base_version=header.base_version if header.kind is PayloadKind.CHANGE else None,
        )

    def _base(self, header: Header, index_map: IndexMap, held: Sequence[Held]) -> Snapshot:
        """The held model that a change builds on, cut to the channels that it is about."""
        for model in held:
            if model.version == header.base_version:
                mine = self.blueprint.index_map(unpack_channels(self.blueprint.groups, model.channels))
                return model.snapshot.cut(within(mine, index_map))
        raise PayloadError("stale", f"version {header.base_version} is not held here: send the whole model")

    def _build(self, index_map: IndexMap) -> tuple[nn.Module, Work]:
        shape = index_map.schema.digest
        if shape not in self._built:
            model = shrink_model(self.blueprint.model, index_map)
            self._built[shape] = model, work_of(self.task, model, self.examined)
        return self._built[shape]
