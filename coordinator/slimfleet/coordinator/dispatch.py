"""What goes out to devices: a plan for each, and the global model shrunk and encoded for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from slimfleet.compression import Assignment, Budget, Channels, Cost, Payload, Plan, Tensors
from slimfleet.compression.codec import CodecSpec, encode
from slimfleet.compression.pruning import (
    IndexMap,
    WindowPolicy,
    magnitude_scores,
    pack_channels,
    select_channels,
)
from slimfleet.compression.pruning.blueprint import Blueprint
from slimfleet.compression.wire import Kind

FLOAT32_BITS = 32


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One device's work, and what the coordinator must remember of it until the answer comes."""

    node: int
    assignment: Assignment
    payload: Payload
    places: IndexMap
    limits: Budget
    """What the spent cost is judged by, whether or not the device was told to keep it."""
    predicted: Cost


@dataclass
class Downlink:
    """The global model of one round, encoded once for every width."""

    blueprint: Blueprint
    tensors: Tensors
    round_number: int
    bits: int
    window: WindowPolicy
    _encoded: dict[tuple[float, bool], tuple[Payload, IndexMap]] = field(default_factory=dict, repr=False)

    def for_plan(self, plan: Plan) -> tuple[Payload, IndexMap]:
        """The payload that a device with this plan receives, and its place in the full model.

        A plan in plain float32 is answered in plain float32.
        """
        plain = plan.nmse == 0
        key = plan.width, plain
        if key not in self._encoded:
            channels = self._channels(plan.width)
            places = self.blueprint.places(channels)
            encoded = encode(
                places.shrink(self.tensors),
                places.schema,
                CodecSpec(bits=FLOAT32_BITS if plain else self.bits),
                kind=Kind.MODEL,
                base_version=self.round_number,
                side=pack_channels(self.blueprint.groups, channels),
            )
            self._encoded[key] = encoded.payload, places
        return self._encoded[key]

    def sizes(self, widths: Sequence[float]) -> dict[float, int]:
        """Bytes of the payload at each of these widths: what a planner need not guess."""
        plans = [Plan(width=w, local_steps=1, batch_size=1, nmse=0.5) for w in widths]
        return {plan.width: len(self.for_plan(plan)[0]) for plan in plans}

    def _channels(self, width: float) -> Channels:
        groups = self.blueprint.groups
        scores = magnitude_scores(groups, self.tensors) if self.window == "importance" else None
        return select_channels(groups, width, self.window, self.round_number, scores)
