"""Versions: the last models published, and which of them a device holds, so that it can be sent the change since.

The length of the cache bounds the coordinator's memory, two bytes a parameter and version, and how long a device may
stay away before it counts as a newcomer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from slimfleet.compression import ModelSchema, Tensors
from slimfleet.compression.codec import Snapshot, carried, publish


@dataclass(frozen=True, slots=True)
class Holding:
    """A version that a device has shown to hold, cut to some channels."""

    version: int | None = None
    """The round that published it; None for a newcomer, or where nothing is known."""
    channels: str = ""
    """Packed channel masks in hexadecimal digits."""

    def covers(self, channels: bytes) -> bool:
        """Whether all the channels of packed masks are among those held."""
        return not int.from_bytes(channels) & ~int.from_bytes(bytes.fromhex(self.channels))


NOTHING = Holding()


class Versions:
    """The published models of the last rounds, by number of the round."""

    def __init__(self, schema: ModelSchema, bits: int, history: int) -> None:
        """Keep `history` versions; with 0 none is kept, and every model is sent whole."""
        self._schema = schema
        self._bits = bits
        self._history = history
        self._snapshots: dict[int, Snapshot] = {}

    def publish(self, number: int, model: Tensors) -> Snapshot:
        """Make the model of round `number` a version and keep it. The same round again gives the same version."""
        earlier = {n: snapshot for n, snapshot in self if n < number}
        before = earlier[max(earlier)] if earlier else None
        weights = publish(model, self._schema, self._bits, before)
        plain = carried(model, self._schema)
        if before is not None:  # what does not move is kept once
            plain = {n: before.plain[n] if before.same(n, array) else array for n, array in plain.items()}
        snapshot = replace(weights, plain=plain)
        if self._history:
            recent = list(earlier.items())[-self._history :]
            self._snapshots = {**dict(recent), number: snapshot}
        return snapshot

    def get(self, number: int | None) -> Snapshot | None:
        """A version, or None where it is not kept any more."""
        return None if number is None else self._snapshots.get(number)

    def __iter__(self) -> Iterator[tuple[int, Snapshot]]:
        return iter(sorted(self._snapshots.items()))

    def restore(self, snapshots: dict[int, Snapshot]) -> None:
        """Restore what iterating returned."""
        self._snapshots = dict(snapshots)
