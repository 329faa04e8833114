"""Device state: what a device keeps between rounds, and which part of it holds when the next one starts.

The residual is what the codec left unsent, for error feedback. A device learns only with its next assignment whether
its last update was accepted, so the residual has two generations: the one that held when the round began, and the one
that holds once the update is accepted.

Held models are the last versions of the global model that the device received. A later round may send the change of
one of them in place of a whole model. Two are kept: the newest, and the one that the coordinator last built on, since a
device cannot know whether its last answer arrived.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slimfleet.compression import Assignment, ModelSchema, Tensors
from slimfleet.compression.codec import Snapshot

HELD_AT_MOST = 2


@dataclass(frozen=True, slots=True, eq=False)
class Residual:
    """What a device left unsent, float32 in the full shapes of every tensor of an update."""

    round_number: int
    """The round that left it."""
    before: Tensors
    """As the round began; holds where its update was rejected or lost."""
    after: Tensors
    """As the round ended; holds where its update was accepted."""


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A version of the global model, cut to some channels."""

    version: int
    """The round that published it."""
    channels: bytes
    """Packed channel masks, as on the wire."""
    snapshot: Snapshot


@dataclass(frozen=True, slots=True, eq=False)
class DeviceState:
    """All that one device keeps between rounds. A new device has nothing."""

    residual: Residual | None = None
    held: tuple[Held, ...] = ()
    """At most two, the newest first."""


def residual_at(assignment: Assignment, kept: Residual | None, schema: ModelSchema) -> Tensors:
    """The residual that holds when the round of `assignment` begins, in new arrays.

    Where the coordinator last accepted the update of the very round that left the residual, `after` holds; else that
    update was rejected or lost, or the same round is run again, and `before` holds. A residual loses value as the
    model moves on: it is multiplied by `feedback_decay` for every round in which it was not used, and dropped when it
    is older than `feedback_max_age` rounds. One from a later round than this belongs to another run, and one that
    `is_behind` holds what has been sent since. Zeros stand for no residual.
    """
    training, now = assignment.training, assignment.round_number
    if (
        kept is None
        or is_behind(assignment, kept)
        or not 0 <= now - kept.round_number <= training.feedback_max_age
    ):
        return {spec.name: np.zeros(spec.shape, np.float32) for spec in schema.tensors}
    age = now - kept.round_number
    if assignment.acknowledged_round == kept.round_number and age > 0:
        return _scaled(kept.after, training.feedback_decay ** (age - 1))
    return _scaled(kept.before, training.feedback_decay**age)


def is_behind(assignment: Assignment, kept: Residual | None) -> bool:
    """Whether the residual is missing, or older than the last update that the coordinator accepted of this device.

    Its file has then been lost, or an old copy of it put back.
    """
    acknowledged = assignment.acknowledged_round
    if acknowledged is None or not assignment.training.feedback:
        return False
    return kept is None or kept.round_number < acknowledged


def held_with(newest: Held, held: Sequence[Held], base_version: int | None) -> tuple[Held, ...]:
    """What to hold now that `newest` has come: it, and the version that it is a change of, or the newest before it."""
    others = [one for one in held if one.version != newest.version]
    bases = [one for one in others if one.version == base_version]
    return (newest, *(bases or others)[: HELD_AT_MOST - 1])


def _scaled(tensors: Tensors, factor: float) -> Tensors:
    return {name: np.asarray(array * np.float32(factor)) for name, array in tensors.items()}
