"""Downlink: the global model of one round, shrunk and encoded once for every width and version held."""

from __future__ import annotations

from dataclasses import dataclass, field

from slimfleet.compression import Channels, Payload, Plan, Tensors
from slimfleet.compression.codec import Snapshot, encode, encode_change, encode_model
from slimfleet.compression.codec.spec import FLOAT32_BITS, PLAIN
from slimfleet.compression.pruning import IndexMap, magnitude_scores, pack_channels, select_channels
from slimfleet.compression.pruning.blueprint import Blueprint
from slimfleet.compression.wire import OVERHEAD_BYTES, Envelope, PayloadKind
from slimfleet.coordinator.sending.versions import NOTHING, Holding, Versions
from slimfleet.coordinator.settings import CoordinatorSettings


@dataclass(frozen=True, slots=True)
class Cut:
    """The global model cut to one width: its packed channels, and their places in the full model."""

    channels: bytes
    index_map: IndexMap


@dataclass
class Downlink:
    """Payloads are encoded when they are first needed and kept for the round."""

    blueprint: Blueprint
    tensors: Tensors
    round_number: int
    versions: Versions
    settings: CoordinatorSettings
    _snapshot: Snapshot | None = field(default=None, repr=False)
    _cuts: dict[float, Cut] = field(default_factory=dict, repr=False)
    _plain: dict[float, Payload] = field(default_factory=dict, repr=False)
    _models: dict[bytes, Payload] = field(default_factory=dict, repr=False)
    _changes: dict[tuple[bytes, int], Payload] = field(default_factory=dict, repr=False)

    def for_plan(self, plan: Plan, held: Holding) -> tuple[Payload, IndexMap, Holding]:
        """For a device with this plan and holding: its payload, the payload's place in the full model, and what it
        holds then.

        A plan in plain float32 gets plain float32, of which nothing is held.
        """
        cut = self._cut(plan.width)
        if plan.nmse == 0:
            return self._in_float32(plan.width), cut.index_map, NOTHING
        payload = self._payload(plan.width, held)
        if self._bits == FLOAT32_BITS:
            return payload, cut.index_map, NOTHING
        return payload, cut.index_map, Holding(self.round_number, cut.channels.hex())

    @property
    def is_published(self) -> bool:
        """Whether this round's version has been made: it has once any device is sent, or measured for, a change."""
        return self._snapshot is not None

    def publish(self) -> Snapshot:
        """This round's version; made when first needed, since a round in plain float32 needs none.

        Raises ValueError where models are sent in float32, of which there are no versions.
        """
        if self._bits == FLOAT32_BITS:
            raise ValueError("models are sent in float32, and have no versions")
        if self._snapshot is None:
            self._snapshot = self.versions.publish(self.round_number, self.tensors)
        return self._snapshot

    def size(self, width: float, held: Holding) -> int:
        """Bytes at this width for a device that holds `held`. Exact: it encodes, once a round and payload."""
        return len(self._payload(width, held))

    def known_size(self, width: float, held: Holding) -> int | None:
        """`size` where the payload is there already."""
        if width not in self._cuts:
            return None
        cut, base = self._cuts[width], self.versions.get(held.version)
        if self._bits == FLOAT32_BITS:
            payload = self._plain.get(width)
        elif base is None or held.version is None or not held.covers(cut.channels):
            payload = self._models.get(cut.channels)
        else:
            payload = self._changes.get((cut.channels, held.version))
        return None if payload is None else len(payload)

    def least_size(self, width: float) -> int:
        """A bound below `size` that costs nothing: an envelope without tensors."""
        return OVERHEAD_BYTES + len(self._cut(width).channels)

    @property
    def _bits(self) -> int:
        return self.settings.codec.downlink_bits

    def _payload(self, width: float, held: Holding) -> Payload:
        """The change since what is held, where that is possible and smaller; else the whole model."""
        if self._bits == FLOAT32_BITS:
            return self._in_float32(width)
        cut, now = self._cut(width), self.publish()
        base = self.versions.get(held.version)
        if base is None or held.version is None or not held.covers(cut.channels):
            return self._whole(cut, now)
        key = cut.channels, held.version
        if key not in self._changes:
            self._changes[key] = self._change(cut, now, held.version, base)
        return self._changes[key]

    def _change(self, cut: Cut, now: Snapshot, version: int, base: Snapshot) -> Payload:
        whole, part = self._whole(cut, now), now.cut(cut.index_map)
        change = encode_change(
            part,
            base.cut(cut.index_map),
            part.plain,
            cut.index_map.schema,
            base_version=version,
            side=cut.channels,
            preset=self.settings.codec.preset,
        )
        return whole if change is None or len(change) >= len(whole) else change

    def _whole(self, cut: Cut, now: Snapshot) -> Payload:
        if cut.channels not in self._models:
            part = now.cut(cut.index_map)
            self._models[cut.channels] = encode_model(
                part,
                part.plain,
                cut.index_map.schema,
                version=self.round_number,
                side=cut.channels,
                preset=self.settings.codec.preset,
            )
        return self._models[cut.channels]

    def _in_float32(self, width: float) -> Payload:
        if width not in self._plain:
            cut = self._cut(width)
            self._plain[width] = encode(
                cut.index_map.shrink(self.tensors),
                cut.index_map.schema,
                PLAIN,
                envelope=Envelope(kind=PayloadKind.MODEL, base_version=self.round_number, side=cut.channels),
            ).payload
        return self._plain[width]

    def _cut(self, width: float) -> Cut:
        if width not in self._cuts:
            channels = self._channels(width)
            packed = pack_channels(self.blueprint.groups, channels)
            self._cuts[width] = Cut(packed, self.blueprint.index_map(channels))
        return self._cuts[width]

    def _channels(self, width: float) -> Channels:
        groups, window = self.blueprint.groups, self.settings.planner.window
        scores = magnitude_scores(groups, self.tensors) if window == "importance" else None
        return select_channels(groups, width, window, self.round_number, scores)
